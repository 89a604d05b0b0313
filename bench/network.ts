import { spawn, execFile, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { promisify } from "node:util";
import type { Sandbox } from "@squash/sdk";
import { TestInternet, places, usualZone } from "../test/support/internet.js";
import { TestNetns } from "../test/support/netns.js";
import { netnsPath } from "../test/support/reach.js";
import { repositoryRoot } from "../test/support/root.js";
import { layers, type Bench } from "./squash.js";
import { times, type Summary } from "./stats.js";

const run = promisify(execFile);
const host = join(repositoryRoot, "build/test/bench/throughput-host.js");
const gigabytes = 4;
const port = 7100;
const bulk = "93.184.216.200";
const gateway = "10.200.0.1";

/** A policy with so many entries of every kind. */
export function policyOf(count: number, shift: number): { allow_net: string[]; deny_net: string[] } {
  const entry = (at: number): string =>
    [
      `host${at + shift}.example.org`,
      `*.zone${at + shift}.example.net:443`,
      `45.${at}.${shift % 256}.0/24`,
      `46.1.${at}.9:5432`,
    ][at % 4] ?? "";
  const entries = Array.from({ length: count }, (_, at) => entry(at));
  return { allow_net: entries.slice(0, (count * 4) / 5), deny_net: entries.slice((count * 4) / 5) };
}

/** Milliseconds of answers to a query, one after another within the limit of sandboxes, of a program in a network namespace. */
async function askOften(
  netns: string,
  address: string,
  { port: to, count }: { readonly port: number; readonly count: number },
): Promise<Summary> {
  const script = `
      const { createSocket } = require("node:dgram");
      const query = Buffer.from("12340100000100000000000003777777076578616d706c65036f72670000010001", "hex"); // A of www.example.org
      const socket = createSocket("udp4");
      const durations = [];
      let start = 0;
      const ask = () => { start = performance.now(); socket.send(query, ${to}, "${address}"); };
      socket.on("message", () => {
        durations.push(performance.now() - start);
        if (durations.length < ${count}) setTimeout(ask, 110); // within the rate limit
        else { console.log(JSON.stringify(durations)); process.exit(); }
      });
      ask();`;
  const { stdout } = await run("nsenter", [`--net=${netns}`, process.execPath, "-e", script]);
  const sorted = (JSON.parse(stdout) as number[]).slice(1).toSorted((a, b) => a - b);
  return { p50: sorted[sorted.length >> 1] ?? 0, p99: sorted[Math.floor(sorted.length * 0.99)] ?? 0, count };
}

/** What the network of sandboxes costs. The internet of the tests must have been started before the bench's squashd. */
export class NetworkBench {
  readonly #bench: Bench;

  constructor(bench: Bench) {
    this.#bench = bench;
  }

  /** Changing the policy of a living sandbox to another one of 50 entries, over HTTP. */
  async change(count: number): Promise<Summary> {
    await using sandbox = await this.#create(policyOf(50, 0));
    return await times(count, (round) => sandbox.setNetwork(policyOf(50, round + 1)));
  }

  /** Answers from the cache, as a program in the sandbox sees them: a UDP packet to the gateway and one back. */
  async dns(count: number): Promise<Summary> {
    await using sandbox = await this.#create({ allow_net: ["www.example.org"], deny_net: [] });
    return await askOften(netnsPath(sandbox.id), gateway, { port: 53, count });
  }

  /** The floor of that: the same program, and one that only sends back what comes, as the ends of a plain veth pair. */
  async echo(count: number): Promise<Summary> {
    const { netns } = this.#bench.squashd;
    const plain = this.#plainPair("44.2.0");
    const script = `
      const socket = require("node:dgram").createSocket("udp4");
      socket.on("message", (bytes, from) => socket.send(bytes, from.port, from.address));
      socket.bind(5300, "44.2.0.1", () => console.log("ready"));`;
    const [program, args] = netns.enter(process.execPath, ["-e", script]);
    const server = spawn(program, args, { stdio: ["ignore", "pipe", "inherit"] });
    try {
      await once(server.stdout, "data");
      return await askOften(plain.path, "44.2.0.1", { port: 5300, count });
    } finally {
      server.kill("SIGKILL");
      plain[Symbol.dispose]();
    }
  }

  /** A namespace, with .2 of a network, at a plain veth pair whose other end, with .1, is where squashd is. */
  #plainPair(network: string): TestNetns {
    const { netns, home } = this.#bench.squashd;
    const plain = new TestNetns(join(home, "plain"));
    plain.make();
    netns.run("ip", "link", "add", "plain0", "type", "veth", "peer", "name", "plain1", "netns", plain.path);
    netns.run("ip", "address", "add", `${network}.1/30`, "dev", "plain0");
    netns.run("ip", "link", "set", "plain0", "up");
    plain.run("ip", "address", "add", `${network}.2/30`, "dev", "plain1");
    plain.run("ip", "link", "set", "plain1", "up");
    return plain;
  }

  /** Gigabits a second from a server on the host to a sandbox by address, and the same over a plain veth pair. */
  async direct(): Promise<{ sandbox: number; plain: number }> {
    const { netns } = this.#bench.squashd;
    const server = await serve(netns, places.host, port);
    const plain = this.#plainPair("44.1.0");
    try {
      plain.run("ip", "route", "add", "default", "via", "44.1.0.1");
      await using sandbox = await this.#create({ allow_net: [`${places.host}:${port}`], deny_net: [] });
      const rounds = { plain: [] as number[], sandbox: [] as number[] };
      for (let round = 0; round < 5; round++) {
        rounds.plain.push(await fetch(plain.path, places.host, port));
        rounds.sandbox.push(await fetch(netnsPath(sandbox.id), places.host, port));
      }
      return { sandbox: median(rounds.sandbox), plain: median(rounds.plain) };
    } finally {
      server.kill();
      plain[Symbol.dispose]();
    }
  }

  /** Gigabits a second from a server behind the transparent proxy. */
  async proxied(internet: TestInternet): Promise<number> {
    internet.run("ip", "address", "add", `${bulk}/32`, "dev", "lo");
    await internet.setZone({
      ...usualZone,
      "bulk.example.org": [{ type: "A", name: "bulk.example.org", ttl: 60, data: bulk }],
    });
    const server = await serve(internet.netns, bulk, 443);
    try {
      await using sandbox = await this.#create({ allow_net: ["bulk.example.org"], deny_net: [] });
      const rounds: number[] = [];
      for (let round = 0; round < 5; round++) rounds.push(await fetch(netnsPath(sandbox.id), bulk, 443));
      return median(rounds);
    } finally {
      server.kill();
    }
  }

  /** Change of a policy, and create with one, among `crowd` sandboxes that each have one of 50 entries. */
  async among(crowd: number, count: number): Promise<{ change: Summary; create: Summary }> {
    const others: Sandbox[] = [];
    while (others.length < crowd) {
      const group = Array.from({ length: Math.min(20, crowd - others.length) }, (_, at) =>
        this.#create(policyOf(50, at)),
      );
      others.push(...(await Promise.all(group)));
    }
    const change = await this.change(count);
    const create = await times(
      count,
      (round) => this.#create(policyOf(50, round)),
      (sandbox) => sandbox.destroy(),
    );
    for (const sandbox of others) await sandbox.destroy();
    return { change, create };
  }

  #create(policy: { allow_net: string[]; deny_net: string[] }): Promise<Sandbox> {
    return this.#bench.squashd.client.create({ layers, memory_mb: 256, ...policy });
  }
}

async function serve(netns: TestNetns, address: string, at: number): Promise<ChildProcess> {
  const [program, args] = netns.enter(process.execPath, [host, "serve", address, String(at)]);
  const child = spawn(program, args, { stdio: ["ignore", "pipe", "inherit"] });
  await once(child.stdout, "data");
  return child;
}

async function fetch(netns: string, address: string, at: number): Promise<number> {
  const args = [host, "fetch", address, String(at), "bulk.example.org", String(gigabytes * 1e9)];
  const { stdout } = await run("nsenter", [`--net=${netns}`, process.execPath, ...args], { timeout: 120_000 });
  return Number(stdout);
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1] ?? 0;
}

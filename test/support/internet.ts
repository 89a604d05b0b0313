import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Answer } from "dns-packet";
import type { Arrival, Zone } from "./internet-host.js";
import { TestNetns } from "./netns.js";
import { repositoryRoot } from "./root.js";
import type { TestSquashd } from "./squashd.js";

/** Where things are in the tests' internet. The addresses are public ones in form, and reachable in the tests' namespaces only. */
export const places = {
  /** resolver of the host */
  resolver: "45.10.0.1",
  /** public address of the host */
  host: "45.10.0.2",
  /** two names are on this one */
  web: "93.184.216.34",
  otherWeb: "93.184.216.99",
  /** for who is not attacked, so that all that arrives elsewhere is an attacker's */
  calmWeb: "93.184.216.55",
  /** a resolver of somebody else's, also by TLS and HTTPS */
  foreignResolver: "8.8.4.4",
  metadata: "169.254.169.254",
  lan: "192.168.77.7",
  /** private address of the host */
  hostPrivate: "10.77.0.1",
} as const;

const { web, otherWeb, calmWeb, foreignResolver, metadata, lan } = places;
const servers = [web, otherWeb, calmWeb, foreignResolver, metadata, lan];
const settleMs = 60;

/** Address records of a name. */
export const a = (name: string, ...addresses: readonly string[]): Answer[] =>
  addresses.map((data) => ({ type: "A", name, ttl: 60, data }));

/** What the resolver knows at first. */
export const usualZone: Zone = {
  "www.example.org": a("www.example.org", places.web),
  "other.example.org": a("other.example.org", places.web),
  "deep.sub.example.org": a("deep.sub.example.org", places.web),
  "www.other.net": a("www.other.net", places.otherWeb),
  "evil.other.net": a("evil.other.net", places.web),
  "alias.example.org": [{ type: "CNAME", name: "alias.example.org", ttl: 60, data: "www.example.org" }],
  "rebind.example.org": a("rebind.example.org", places.lan),
  "rebind-meta.example.org": a("rebind-meta.example.org", places.metadata),
  "rebind-loopback.example.org": a("rebind-loopback.example.org", "127.0.0.1"),
  "rebind-host.example.org": a("rebind-host.example.org", "10.200.0.1"),
  "rebind-mixed.example.org": a("rebind-mixed.example.org", places.web, places.lan),
  "rebind-alias.example.org": [{ type: "CNAME", name: "rebind-alias.example.org", ttl: 60, data: "inside.other.net" }],
  "inside.other.net": a("inside.other.net", places.lan),
  "rebind-public.example.org": a("rebind-public.example.org", places.host),
  "rebind-private.example.org": a("rebind-private.example.org", places.hostPrivate),
  "calm.other.net": a("calm.other.net", places.calmWeb),
  "six.example.org": [{ type: "AAAA", name: "six.example.org", ttl: 60, data: "2606:2800:220:1::1" }],
  "*.wild.other.net": a("*.wild.other.net", places.otherWeb),
};

/**
 * A small internet beside a squashd: a namespace with an authoritative resolver, web servers with several names on one address, TLS servers,
 * a metadata server, a LAN host and echo services, routed to the namespace that squashd runs in. It records what arrives where.
 */
export class TestInternet implements AsyncDisposable {
  readonly #squashd: TestSquashd;
  readonly #netns: TestNetns;
  readonly arrivals: Arrival[] = [];
  #process: ChildProcess | null = null;
  #zone: Zone = {};
  #certificate = "";

  constructor(squashd: TestSquashd) {
    this.#squashd = squashd;
    this.#netns = new TestNetns(join(squashd.home, "internet"));
  }

  /** Settings of a squashd that is in it. */
  get env(): Record<string, string> {
    return { SQUASH_RESOLV_CONF: join(this.#squashd.home, "resolv.conf") };
  }

  /** Of all TLS servers, in PEM; it is its own authority. */
  get certificate(): string {
    return this.#certificate;
  }

  /** Must come before squashd starts. */
  async start(): Promise<void> {
    this.#squashd.netns.make();
    this.#netns.make();
    this.resolvers(places.resolver);
    this.#connect();
    const { foreignResolver, resolver } = places;
    const at = (...ports: readonly number[]): [string, number][] =>
      servers.flatMap((address) => ports.map((port): [string, number] => [address, port]));
    const options = {
      dns: [resolver, foreignResolver],
      web: servers,
      echo: at(853, 5432, 7000),
      udpEcho: at(443, 853, 5432, 7000),
    };
    const script = join(repositoryRoot, "build/test/test/support/internet-host.js");
    const [program, args] = this.#netns.enter(process.execPath, [script, JSON.stringify(options)]);
    const child = spawn(program, args, { stdio: ["ignore", "inherit", "inherit", "ipc"] });
    this.#process = child;
    const ready = new Promise<void>((resolve, reject) => {
      child.on("exit", (status) => reject(new Error(`the internet ended with status ${status}`)));
      child.on("message", (arrival: Arrival) => {
        if (arrival.server === "ready") {
          this.#certificate = arrival.detail;
          resolve();
        } else if (arrival.server !== "zone") this.arrivals.push(arrival);
      });
    });
    await ready;
    await this.setZone(usualZone);
  }

  /** Replaces what the resolver knows. */
  async setZone(zone: Zone): Promise<void> {
    const child = this.#process;
    if (child === null) throw new Error("the internet is not there");
    const taken = new Promise<void>((resolve) => {
      const look = (arrival: Arrival): void => {
        if (arrival.server !== "zone") return;
        child.off("message", look);
        resolve();
      };
      child.on("message", look);
    });
    this.#zone = zone;
    child.send(zone);
    await taken;
  }

  /** Waits until whatever is on its way to a server has been recorded. */
  async settled(): Promise<void> {
    await new Promise((resolve) => setTimeout(resolve, settleMs));
    await this.setZone(this.#zone);
  }

  /** Writes the resolvers that squashd is to ask. */
  resolvers(...addresses: readonly string[]): void {
    writeFileSync(this.env["SQUASH_RESOLV_CONF"] ?? "", addresses.map((address) => `nameserver ${address}\n`).join(""));
  }

  /** Where its servers are. */
  get netns(): TestNetns {
    return this.#netns;
  }

  /** Runs a program in the internet's namespace to its end. */
  run(program: string, ...args: readonly string[]): string {
    return this.#netns.run(program, ...args);
  }

  /** What arrived at servers whose name begins so, since `from` (a length of `arrivals`). */
  seen(server: string, from = 0): string[] {
    return this.arrivals
      .slice(from)
      .filter((each) => each.server.startsWith(server))
      .map(({ server: at, detail }) => `${at} ${detail}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const child = this.#process;
    this.#process = null;
    if (child !== null && child.exitCode === null) {
      const gone = once(child, "exit");
      child.removeAllListeners("exit");
      const ended = once(child, "exit");
      child.disconnect();
      await Promise.race([gone, ended]);
    }
    this.#netns[Symbol.dispose]();
  }

  #connect(): void {
    const { netns } = this.#squashd;
    const { resolver, host, hostPrivate } = places;
    this.#netns.run("ip", "link", "add", "up0", "type", "veth", "peer", "name", "down0", "netns", netns.path);
    this.#netns.run("ip", "address", "add", `${resolver}/30`, "dev", "up0");
    this.#netns.run("ip", "link", "set", "up0", "up");
    for (const address of servers) this.#netns.run("ip", "address", "add", `${address}/32`, "dev", "lo");
    netns.run("ip", "address", "add", `${host}/30`, "dev", "down0");
    netns.run("ip", "address", "add", `${hostPrivate}/32`, "dev", "lo");
    netns.run("ip", "link", "set", "down0", "up");
    netns.run("ip", "route", "add", "default", "via", resolver);
  }
}

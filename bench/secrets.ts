import { execFile, spawn, type ChildProcess } from "node:child_process";
import { createServer, type AddressInfo } from "node:net";
import { once } from "node:events";
import { join } from "node:path";
import { promisify } from "node:util";
import { repositoryRoot } from "../test/support/root.js";
import type { HostArguments } from "./secrets-host.js";
import type { Summary } from "./stats.js";

const run = promisify(execFile);
const host = join(repositoryRoot, "build/test/bench/secrets-host.js");
const intercepted = "a.host.bench";

/** What one way to put a value in place of a placeholder costs. */
export interface SecretFigures {
  /** of one request after another over a kept connection, in milliseconds */
  readonly latency: Summary;
  /** requests a second over 16 kept connections */
  readonly perSecond: number;
  /** the first request to a host, with a connection and a certificate of its own, in milliseconds */
  readonly first: Summary;
  /** of an answer of 2 GiB, in Gbit/s */
  readonly gigabits: number;
}

/** Squashd's proxy and mitmproxy before the same server; client, proxy and server are processes of their own on this machine. */
export class SecretsBench {
  readonly #children: ChildProcess[] = [];
  readonly #given: HostArguments;

  private constructor(given: HostArguments) {
    this.#given = given;
  }

  static async start(): Promise<SecretsBench> {
    const { stdout } = await run(process.execPath, [host, "authorities"]);
    const serverPort = await freePort();
    const bench = new SecretsBench({
      ...(JSON.parse(stdout) as Pick<HostArguments, "server" | "proxy">),
      ...{ serverPort, proxyPort: serverPort, name: intercepted, what: "latency", trusted: true },
    });
    await bench.#spawn(process.execPath, [host, "serve", JSON.stringify(bench.#given)]);
    return bench;
  }

  /** Requests that squashd's proxy reads. */
  async squash(): Promise<SecretFigures> {
    return this.#figures({ proxyPort: await this.#proxy() });
  }

  /** The latency of the same requests, and of the first to a host, where the proxy passes TLS on as it is. */
  async tunnelled(): Promise<Pick<SecretFigures, "latency" | "first">> {
    // names that no secret is for: the server has one certificate for all
    const given = { proxyPort: await this.#proxy(), trusted: false };
    return {
      latency: await this.#load<Summary>({ ...given, name: "a.other.bench", what: "latency" }),
      first: await this.#load<Summary>({ ...given, name: "other.bench", what: "first" }),
    };
  }

  /** Throws where there is no mitmdump. */
  async mitmproxy(): Promise<SecretFigures> {
    const proxyPort = await freePort();
    // by a name: without one in TLS the server has no certificate
    const upstream = `reverse:https://localhost:${this.#given.serverPort}`;
    const options = ["--set", "ssl_insecure=true", "--set", "stream_large_bodies=1m", "--set", "http2=false"];
    const modify = ["--modify-headers", "/~q/x-token/value-of-the-token-0000000"];
    const child = spawn("mitmdump", ["-q", "--mode", upstream, "-p", String(proxyPort), ...options, ...modify], {
      stdio: "ignore",
    });
    this.#children.push(child);
    await Promise.race([once(child, "error").then(([error]) => Promise.reject(error as Error)), accepts(proxyPort)]);
    return this.#figures({ proxyPort, trusted: false });
  }

  [Symbol.dispose](): void {
    for (const child of this.#children) child.kill();
  }

  async #proxy(): Promise<number> {
    return (await this.#spawn(process.execPath, [host, "proxy", JSON.stringify(this.#given)])) as number;
  }

  async #figures(given: Partial<HostArguments>): Promise<SecretFigures> {
    return {
      latency: await this.#load<Summary>({ ...given, what: "latency" }),
      perSecond: await this.#load<number>({ ...given, what: "rate" }),
      first: await this.#load<Summary>({ ...given, name: "host.bench", what: "first" }),
      gigabits: await this.#load<number>({ ...given, what: "large" }),
    };
  }

  async #load<T>(given: Partial<HostArguments>): Promise<T> {
    const { stdout } = await run(process.execPath, [host, "load", JSON.stringify({ ...this.#given, ...given })], {
      timeout: 300_000,
    });
    return JSON.parse(stdout) as T;
  }

  /** Starts a part; what it says first. */
  async #spawn(program: string, args: readonly string[]): Promise<unknown> {
    const child = spawn(program, args, { stdio: ["ignore", "pipe", "inherit"] });
    this.#children.push(child);
    const [line] = (await once(child.stdout, "data")) as [Buffer];
    return JSON.parse(line.toString());
  }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  return port;
}

async function accepts(port: number): Promise<void> {
  const { connect } = await import("node:net");
  for (let round = 0; round < 300; round += 1) {
    const socket = connect(port, "127.0.0.1");
    const open = await new Promise((resolve) =>
      socket.once("connect", () => resolve(true)).once("error", () => resolve(false)),
    );
    socket.destroy();
    if (open === true) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error("mitmdump does not accept connections");
}

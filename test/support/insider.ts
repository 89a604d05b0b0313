import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import type { RecordType } from "dns-packet";
import type { LoopResult, Task } from "./insider-host.js";
import { repositoryRoot } from "./root.js";

const taskTimeoutMs = 20_000;
const script = join(repositoryRoot, "build/test/test/support/insider-host.js");

interface Report {
  readonly id: number;
  readonly result: unknown;
  readonly error: string | null;
}

/**
 * A Node process in a network namespace, mostly a sandbox's, that says what it is told to. It is the host's root, hence a stronger attacker
 * than anything in a sandbox is. Results are short texts: what was answered, or the error's code.
 */
export class Insider implements AsyncDisposable {
  readonly #child: ChildProcess;
  readonly #waiting = new Map<number, { resolve: (result: unknown) => void; reject: (error: Error) => void }>();
  readonly #certificate: string;
  #nextId = 1;

  private constructor(netns: string, certificate: string) {
    this.#certificate = certificate;
    this.#child = spawn("nsenter", [`--net=${netns}`, process.execPath, script], {
      stdio: ["ignore", "inherit", "inherit", "ipc"],
    });
    this.#child.on("message", ({ id, result, error }: Report) => {
      const waiting = this.#waiting.get(id);
      this.#waiting.delete(id);
      if (error === null) waiting?.resolve(result);
      else waiting?.reject(new Error(error));
    });
    this.#child.on("exit", (status) => {
      for (const { reject } of this.#waiting.values()) reject(new Error(`the insider ended with status ${status}`));
    });
  }

  /** `certificate` is the authority of the TLS servers. */
  static async start(netns: string, certificate: string): Promise<Insider> {
    const insider = new Insider(netns, certificate);
    await insider.#report(0); // it says that it is there
    return insider;
  }

  /** Such as "NOERROR 192.0.2.7", "REFUSED", "silence". The gateway answers, and UDP asks, where nothing else is said. */
  lookup(
    name: string,
    options: { readonly type?: RecordType; readonly server?: string; readonly protocol?: "tcp" | "udp" } = {},
  ): Promise<string> {
    return this.#do({ op: "lookup", name, type: "A", server: gateway, protocol: "udp", ...options }) as Promise<string>;
  }

  /** The status and the body, such as "200 hello", or how it ended without them. */
  async http(address: string, host: string, path = "/"): Promise<string> {
    const request = `GET ${path} HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`;
    const { text, end } = await this.talk(address, 80, request);
    const match = /^HTTP\/1\.1 (\d+) [^]*?\r\n\r\n([^]*)$/.exec(text);
    return match === null ? end : `${match[1]} ${match[2]?.trim()}`;
  }

  /** The body, or an error's code; without a name in the hello where that is empty. */
  tls(address: string, serverName: string): Promise<string> {
    return this.#do({ op: "tls", address, port: 443, serverName, ca: this.#certificate }) as Promise<string>;
  }

  /** What a server says first, or how it ended. */
  async tcp(address: string, port: number): Promise<string> {
    const { text, end } = await this.talk(address, port, "", { until: "\n" });
    return text.trim() || end;
  }

  /** What comes back of a datagram, or an error's code, or "silence". */
  udp(address: string, port: number, text = "ping"): Promise<string> {
    return this.#do({ op: "udp", address, port, text }) as Promise<string>;
  }

  /** Sends bytes; what comes back, and how it ends: "end", "silence", "enough" with `until`, or an error's code. */
  talk(
    address: string,
    port: number,
    bytes: Buffer | string,
    { pieces = 0, until = "" }: { readonly pieces?: number; readonly until?: string } = {},
  ): Promise<{ readonly text: string; readonly end: string }> {
    const encoded = Buffer.from(bytes as string, "latin1").toString("base64");
    const task: Task = { op: "talk", address, port, bytes: encoded, pieces, until };
    return this.#do(task) as Promise<{ text: string; end: string }>;
  }

  /** Asks the gateway for all names at once, and again every so often where that is not 0; how many answers came. */
  burst(names: readonly string[], forMs: number, everyMs = 0): Promise<number> {
    return this.#do({ op: "burst", names, server: gateway, forMs, everyMs }) as Promise<number>;
  }

  /** Opens connections that say nothing, and keeps them; how many are open a moment later. */
  hold(address: string, port: number, count: number): Promise<number> {
    return this.#do({ op: "hold", address, port, count }) as Promise<number>;
  }

  /** Serves HTTP at all addresses of the namespace. */
  async listen(port: number): Promise<void> {
    await this.#do({ op: "listen", port });
  }

  /** Looks a name up and talks to it, again and again. */
  async startLoop(name: string): Promise<void> {
    await this.#do({ op: "loop", name, server: gateway, ca: this.#certificate });
  }

  endLoop(): Promise<LoopResult> {
    return this.#do({ op: "loop-end" }) as Promise<LoopResult>;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.exitCode !== null || !this.#child.connected) return;
    const gone = once(this.#child, "exit");
    this.#child.disconnect();
    await gone;
  }

  #do(task: Task): Promise<unknown> {
    const id = this.#nextId++;
    const report = this.#report(id);
    this.#child.send({ id, task });
    return report;
  }

  #report(id: number): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`the insider did not report on task ${id}`)), taskTimeoutMs);
      const done = (): void => clearTimeout(timer);
      this.#waiting.set(id, {
        resolve: (result) => (done(), resolve(result)),
        reject: (error) => (done(), reject(error)),
      });
    });
  }
}

/** Of every sandbox. */
export const gateway = "10.200.0.1";

import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import type { Sandbox } from "@squash/sdk";
import { TestNetns } from "./netns.js";
import type { HeldKind, HeldState, Order, Protocol, StormResult } from "./reach-host.js";
import { repositoryRoot } from "./root.js";

interface Answer {
  readonly id: number;
  readonly result?: unknown;
  readonly error?: string;
}

/** Something that is connected to: an address and a port. */
export type Place = readonly [address: string, port: number];

const usualTimeoutMs = 700;

/** The network namespace of a sandbox, where a test may do more than the sandbox itself. */
export function netnsOf({ id }: Sandbox): TestNetns {
  return new TestNetns(netnsPath(id));
}

/** Where the network namespace of a sandbox is that a squashd of this process's tests has made. */
export function netnsPath(id: string): string {
  const [name, ...others] = readdirSync("/run/netns").filter(
    (each) => each.startsWith(`sqt-${process.pid}-`) && each.replace(/^sqt-\d+-\d+-/, "") === id,
  );
  if (name === undefined || others.length > 0) throw new Error(`there is not one sandbox "${id}" with a network`);
  return `/run/netns/${name}`;
}

/** A process that connects and serves in a network namespace. It ends with its disposal; what it holds open goes with it. */
export class Reach implements AsyncDisposable {
  readonly #child: ChildProcess;
  readonly #waiting = new Map<number, (answer: Answer) => void>();
  #nextId = 0;

  private constructor(child: ChildProcess) {
    this.#child = child;
  }

  static async from(netns: TestNetns): Promise<Reach> {
    const script = join(repositoryRoot, "build/test/test/support/reach-host.js");
    const [program, args] = netns.enter(process.execPath, [script]);
    const child = spawn(program, args, { stdio: ["ignore", "inherit", "inherit", "ipc"] });
    const reach = new Reach(child);
    await new Promise<void>((resolve, reject) => {
      child.on("exit", (status) => reject(new Error(`the client ended with status ${status}`)));
      child.on("message", (answer: Answer) => {
        if (answer.id === -1) resolve();
        else reach.#waiting.get(answer.id)?.(answer);
      });
    });
    return reach;
  }

  /** "open", "refused CODE" or "silent". */
  async try([address, port]: Place, options: { protocol?: Protocol; timeoutMs?: number } = {}): Promise<string> {
    const { protocol = "tcp", timeoutMs = usualTimeoutMs } = options;
    return (await this.#order({ kind: "try", protocol, address, port, timeoutMs })) as string;
  }

  /** As `try`, but tells only whether it is open. */
  async opens(place: Place, protocol: Protocol = "tcp"): Promise<boolean> {
    return (await this.try(place, { protocol })) === "open";
  }

  /** Begins a transfer that goes on by itself, and returns its handle once something has come back. */
  async hold(as: HeldKind, [address, port]: Place, name = ""): Promise<number> {
    return (await this.#order({ kind: "hold", as, address, port, name })) as number;
  }

  async state(handle: number): Promise<HeldState> {
    return (await this.#order({ kind: "state", handle })) as HeldState;
  }

  /** Opens connections and keeps them; returns how many there are. */
  async many([address, port]: Place, count: number): Promise<number> {
    return (await this.#order({ kind: "many", address, port, count })) as number;
  }

  /** Bytes a second through an echo server, there and back. */
  async pump([address, port]: Place, ms: number): Promise<number> {
    return (await this.#order({ kind: "pump", address, port, ms })) as number;
  }

  /** Connects again and again to all of these until `calm`. */
  async storm(targets: readonly Place[], options: { atOnce?: number; timeoutMs?: number } = {}): Promise<number> {
    const { atOnce = 4, timeoutMs = 200 } = options;
    return (await this.#order({ kind: "storm", targets, atOnce, timeoutMs })) as number;
  }

  async calm(handle: number): Promise<StormResult> {
    return (await this.#order({ kind: "calm", handle })) as StormResult;
  }

  /** Lets go of all connections that are held. */
  async release(): Promise<void> {
    await this.#order({ kind: "release" });
  }

  /** Makes a port of this namespace a socket file. */
  async relay(path: string, [address, port]: Place): Promise<void> {
    await this.#order({ kind: "relay", path, address, port });
  }

  /** Serves an echo by TCP and UDP. */
  async listen([address, port]: Place): Promise<void> {
    await this.#order({ kind: "listen", address, port });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const child = this.#child;
    if (child.exitCode !== null || child.signalCode !== null) return;
    child.removeAllListeners("exit");
    const gone = once(child, "exit");
    child.kill("SIGKILL");
    await gone;
  }

  #order(order: Order): Promise<unknown> {
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, ({ result, error }) => {
        this.#waiting.delete(id);
        if (error === undefined) resolve(result);
        else reject(new Error(error));
      });
      this.#child.send({ id, order });
    });
  }
}

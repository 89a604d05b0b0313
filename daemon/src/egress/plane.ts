import { createRequire } from "node:module";
import { Worker } from "node:worker_threads";
import { SquashError } from "@squash/sdk/errors";
import type { EgressPlane, PlaneClient, PlaneCounters, PlaneEvents, PlaneSecrets } from "../core/egress/plane.js";
import type { FromThread, PlanePorts, ThreadData, ToThread } from "./thread-protocol.js";

type Request = Exclude<ToThread, { type: "learned" }>;
type Unnumbered<T> = T extends unknown ? Omit<T, "id"> : never;

interface Waiting {
  readonly timer: NodeJS.Timeout;
  readonly resolve: (counters: PlaneCounters | null) => void;
  readonly reject: (error: Error) => void;
}

export interface PlaneOptions {
  readonly gateway: string;
  /** null where sandboxes have no IPv6 */
  readonly gateway6: string | null;
  readonly subnets: readonly string[];
  readonly resolvConf: string;
  readonly resolverPort: number;
  /** TCP port of the control API; null where it is a unix socket */
  readonly apiPort: number | null;
  /** PEM file of roots that servers' certificates are verified against besides the host's; null for none */
  readonly extraRoots: string | null;
  /** path of the thread's program; another than ours only in tests */
  readonly thread?: string;
  /** told of failures that no caller learns of */
  readonly report: (error: string) => void;
}

/** for machines that are emulated, too */
const startTimeoutMs = 60_000;
/** a thread that does not answer for so long is taken for stuck, and replaced */
const requestTimeoutMs = 10_000;
const closeTimeoutMs = 2_000;
const restartDelayMs = 100;
// by name, so that it is found from the sources as well, where only the compiled thread can run
const usualThread = createRequire(import.meta.url).resolve("#egress-thread");

/**
 * The resolver and the proxy, in a thread of their own, kept alive: when it ends, the next one listens at the same ports and knows the same
 * sandboxes. Meanwhile nothing that needs it gets through.
 */
export class ThreadPlane implements EgressPlane {
  readonly #options: PlaneOptions;
  readonly #clients = new Map<string, PlaneClient>();
  #secrets: PlaneSecrets = { secrets: [], authorities: [] };
  readonly #waiting = new Map<number, Waiting>();
  #events: PlaneEvents | null = null;
  #worker: Promise<Worker>;
  /** the thread that runs or starts */
  #latest: Worker | null = null;
  #ports: PlanePorts | null = null;
  #nextId = 1;
  #closing = false;

  private constructor(options: PlaneOptions) {
    this.#options = options;
    this.#worker = this.#start();
    this.#worker.catch(() => undefined); // reported by whoever asks for it
  }

  /** The gateway's addresses must be the machine's own by now. Throws `SquashError` "kernel". */
  static async start(options: PlaneOptions): Promise<ThreadPlane> {
    const plane = new ThreadPlane(options);
    await plane.#worker;
    return plane;
  }

  /** Connects it to the domain; until then no name is resolved for anybody. */
  connect(events: PlaneEvents): void {
    this.#events = events;
  }

  get ports(): PlanePorts {
    if (this.#ports === null) throw new Error("the egress thread has not started");
    return this.#ports;
  }

  async set(client: PlaneClient): Promise<void> {
    this.#clients.set(client.address, client);
    await this.#request({ type: "set", client });
  }

  /** Kept for later threads also where this one does not take it. */
  async setSecrets(secrets: PlaneSecrets): Promise<void> {
    this.#secrets = secrets;
    await this.#request({ type: "secrets", secrets });
  }

  async remove(address: string): Promise<void> {
    this.#clients.delete(address);
    await this.#request({ type: "remove", address });
  }

  async counters(address: string): Promise<PlaneCounters> {
    const counters = await this.#request({ type: "counters", address });
    if (counters === null) throw new SquashError("internal", "Cannot read the figures of the egress thread");
    return counters;
  }

  /** In bounded time; nothing can be asked for afterwards. */
  async close(): Promise<void> {
    if (this.#closing) return;
    const late = new Promise((resolve) => setTimeout(resolve, closeTimeoutMs).unref());
    const closed = this.#request({ type: "close" }).catch(() => undefined);
    this.#closing = true;
    await Promise.race([closed, late]);
    await this.#latest?.terminate();
    this.#fail("squashd is shutting down");
  }

  async #request(request: Unnumbered<Request>): Promise<PlaneCounters | null> {
    const worker = await this.#worker;
    if (this.#closing && request.type !== "close") throw shuttingDown();
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        const reason = `it did not answer ${request.type} in time`;
        this.#waiting.delete(id);
        reject(new SquashError("internal", `Cannot go on: ${reason}`));
        this.#lost(worker, reason);
      }, requestTimeoutMs);
      this.#waiting.set(id, { resolve, reject, timer: timer.unref() });
      worker.postMessage({ ...request, id } satisfies ToThread);
    });
  }

  #start(): Promise<Worker> {
    if (this.#closing) return Promise.reject(shuttingDown());
    const { gateway, gateway6, subnets, resolvConf, resolverPort, apiPort, extraRoots } = this.#options;
    const { thread = usualThread } = this.#options;
    const ports = this.#ports;
    const workerData = {
      gateway,
      gateway6,
      subnets,
      resolvConf,
      resolverPort,
      apiPort,
      extraRoots,
      ports,
    } satisfies ThreadData;
    const worker = new Worker(thread, { name: "egress", workerData });
    this.#latest = worker;
    worker.unref();
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => fail("it did not start in time"), startTimeoutMs);
      const fail = (reason: string): void => {
        clearTimeout(timer);
        reject(new SquashError("kernel", `Cannot answer for sandboxes at ${gateway}: ${reason}`));
        this.#lost(worker, reason);
      };
      worker.on("error", (error) => fail(error.message));
      worker.on("exit", (status) => fail(`the egress thread ended with status ${status}`));
      worker.on("message", (message: FromThread) => {
        if (message.type !== "ready") return this.#receive(worker, message);
        clearTimeout(timer);
        this.#ports = message.ports;
        worker.postMessage({ type: "secrets", id: 0, secrets: this.#secrets } satisfies ToThread);
        for (const client of this.#clients.values())
          worker.postMessage({ type: "set", id: 0, client } satisfies ToThread);
        resolve(worker);
      });
    });
  }

  #receive(worker: Worker, message: Exclude<FromThread, { type: "ready" }>): void {
    switch (message.type) {
      case "done": {
        const waiting = this.#waiting.get(message.id);
        this.#waiting.delete(message.id);
        clearTimeout(waiting?.timer);
        if (message.error === null) waiting?.resolve(message.counters);
        else waiting?.reject(new SquashError("internal", `Cannot change what sandboxes reach: ${message.error}`));
        break;
      }
      case "learn":
        void this.#learn(worker, message);
        break;
      case "decided":
        this.#events?.decided(message.decision);
        break;
      case "used":
        this.#events?.used(message.use);
        break;
      case "rotated":
        this.#events?.rotated(message.token);
        break;
      case "report":
        this.#options.report(message.error);
        break;
    }
  }

  async #learn(worker: Worker, { id, client, name, answer }: Extract<FromThread, { type: "learn" }>): Promise<void> {
    let error: string | null = null;
    try {
      if (this.#events === null) throw new Error("squashd is starting");
      await this.#events.learn(client, name, answer);
    } catch (cause) {
      error = cause instanceof Error ? cause.message : String(cause);
    }
    worker.postMessage({ type: "learned", id, error } satisfies ToThread);
  }

  /** Whoever waited learns it. Once it had started, the next one takes its place. */
  #lost(worker: Worker, reason: string): void {
    if (worker !== this.#latest) return;
    this.#latest = null;
    worker.removeAllListeners();
    worker.on("error", () => undefined); // nobody waits for it any more
    void worker.terminate();
    this.#fail(reason);
    if (this.#closing || this.#ports === null) return;
    this.#options.report(`the egress thread is started again: ${reason}`);
    this.#worker = new Promise((resolve) => setTimeout(resolve, restartDelayMs)).then(() => this.#start());
    this.#worker.catch(() => undefined); // reported by whoever asks for it
  }

  #fail(reason: string): void {
    for (const { reject, timer } of this.#waiting.values()) {
      clearTimeout(timer);
      reject(new SquashError("internal", `Cannot go on: ${reason}`));
    }
    this.#waiting.clear();
  }
}

function shuttingDown(): SquashError {
  return new SquashError("shutting_down", "Cannot change what sandboxes reach: squashd is shutting down");
}

import { patience } from "../patience.js";
import type { TestSquashd } from "../squashd.js";
import type { FaultProxy } from "./fault-proxy.js";

export const pauseMs = (ms: number): Promise<void> => new Promise((done) => setTimeout(done, ms));

/** What was done to machines, and how often. */
export class Tally {
  readonly counts = new Map<string, number>();

  add(what: string): void {
    this.counts.set(what, (this.counts.get(what) ?? 0) + 1);
  }

  get total(): number {
    return [...this.counts.values()].reduce((sum, count) => sum + count, 0);
  }

  toString(): string {
    return [...this.counts]
      .toSorted()
      .map(([what, count]) => `${what} ${count}`)
      .join(", ");
  }
}

/** A squashd and its way to the bucket, to which things happen, one at a time. */
export class ChaosMachine {
  readonly squashd: TestSquashd;
  readonly #proxy: FaultProxy;
  readonly #leaseMs: number;
  readonly #random: (below: number) => number;
  readonly #tally: Tally;
  #busy: Promise<void> | null = null;
  #isUp = true;

  constructor(
    squashd: TestSquashd,
    options: { proxy: FaultProxy; leaseMs: number; random: (below: number) => number; tally: Tally },
  ) {
    this.squashd = squashd;
    this.#proxy = options.proxy;
    this.#leaseMs = options.leaseMs;
    this.#random = options.random;
    this.#tally = options.tally;
  }

  /** Whether squashd is there, though it may be stopped or cut off. */
  get isUp(): boolean {
    return this.#isUp;
  }

  /** Kills squashd so many milliseconds from now, unless something happens to it already, and starts it again some time later. */
  killIn(ms: number): void {
    if (this.#busy !== null) return;
    void this.#happens("kill -9 at a step", async () => {
      await pauseMs(ms);
      await this.#killed();
    });
  }

  /** Something happens, unless it does already; returns when it is over. */
  async disturb(): Promise<void> {
    if (this.#busy !== null) return this.#busy;
    const [what, work] = this.#any();
    await this.#happens(what, work);
  }

  /** Waits until nothing happens any more. */
  async settled(): Promise<void> {
    while (this.#busy !== null) await this.#busy;
  }

  #happens(what: string, work: () => Promise<void>): Promise<void> {
    this.#tally.add(what);
    this.#busy = work().finally(() => (this.#busy = null));
    this.#busy.catch(() => undefined); // whoever waits hears of it
    return this.#busy;
  }

  #any(): [string, () => Promise<void>] {
    const random = this.#random;
    const long = this.#leaseMs + 500 + random(3_000);
    const all: [string, () => Promise<void>][] = [
      ["kill -9", () => this.#killed()],
      ["restart", () => this.#restarted()],
      ["stopped beyond the lease", () => this.#stopped(long)],
      ["stopped", () => this.#stopped(200 + random(2_000))],
      ["cut off beyond the lease", () => this.#cut(long)],
      ["cut off", () => this.#cut(200 + random(3_000))],
      ["503", () => this.#faulty({ kind: "answer", status: 503, code: "SlowDown" }, 500 + random(4_000))],
      ["latency", () => this.#faulty({ kind: "latency", ms: 50 + random(400) }, 1_000 + random(3_000))],
      ["answers lost", () => this.#faulty({ kind: "lose-response" }, 200 + random(1_000), "PUT")],
      ["requests reset", () => this.#faulty({ kind: "reset-request", afterBytes: random(3_000) }, 1_000, "PUT")],
    ];
    return all[random(all.length)] ?? ["nothing", () => Promise.resolve()];
  }

  async #killed(): Promise<void> {
    this.#isUp = false;
    await this.squashd.end("SIGKILL");
    await pauseMs(this.#random(4) === 0 ? this.#leaseMs + this.#random(3_000) : this.#random(1_000));
    await this.squashd.start();
    this.#isUp = true;
  }

  async #restarted(): Promise<void> {
    this.#isUp = false;
    await this.squashd.end("SIGTERM");
    await this.squashd.start();
    this.#isUp = true;
  }

  async #stopped(ms: number): Promise<void> {
    const { pid } = this.squashd;
    process.kill(pid, "SIGSTOP");
    await pauseMs(ms * patience);
    process.kill(pid, "SIGCONT");
  }

  async #cut(ms: number): Promise<void> {
    await this.#proxy.cut();
    await pauseMs(ms);
    await this.#proxy.mend();
  }

  async #faulty(fault: Parameters<FaultProxy["inject"]>[0], ms: number, method?: string): Promise<void> {
    await using _ = await this.#proxy.inject(fault, method === undefined ? {} : { method });
    await pauseMs(ms);
  }
}

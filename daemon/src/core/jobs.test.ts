import { SquashError } from "@squash/sdk/errors";
import { beforeEach, describe, expect, it } from "vitest";
import { Jobs, type JobContext, type JobPlan } from "./jobs.js";

let bugs: unknown[];
let jobs: Jobs;
let count: number;
beforeEach(() => {
  bugs = [];
  count = 0;
  jobs = new Jobs({
    newId: () => `job-${++count}`,
    report: (error) => bugs.push(error),
    maxRunning: 2,
    maxQueued: 2,
    maxKept: 3,
  });
});

/** Work that a test ends; it ends by itself when it is cancelled. */
class Work {
  context: JobContext | null = null;
  released = 0;
  #end: (error: Error | null) => void = () => undefined;

  readonly plan: JobPlan = {
    kind: "convert",
    module: "100-a",
    run: (context) => {
      this.context = context;
      return new Promise((resolve, reject) => {
        this.#end = (error) => (error === null ? resolve() : reject(error));
        context.signal.addEventListener("abort", () => reject(new Error("aborted")));
      });
    },
    release: () => {
      this.released++;
      return Promise.resolve();
    },
  };

  async end(error: Error | null = null): Promise<void> {
    this.#end(error);
    for (let tick = 0; tick < 5; tick++) await Promise.resolve();
  }
}

const states = (): string[] => jobs.list().map(({ id, state }) => `${id} ${state}`);

describe("a job", () => {
  it("tells what it has made when it is done, and not before", async () => {
    const work = new Work();
    const [first, second] = [
      jobs.start(work.plan),
      jobs.start({ ...work.plan, run: () => Promise.resolve(), made: () => ["100-a", "101-a"] }),
    ];
    expect(jobs.get(first.id).modules).toEqual([]);
    await work.end();
    expect(jobs.get(first.id).modules).toEqual(["100-a"]);
    expect(jobs.get(second.id).modules).toEqual(["100-a", "101-a"]);
  });

  it("runs, tells what it does, and is done", async () => {
    const work = new Work();
    const { id } = jobs.start(work.plan);
    expect(jobs.get(id)).toMatchObject({
      kind: "convert",
      module: "100-a",
      state: "running",
      fraction: null,
      lines: [],
    });
    const seen: string[] = [];
    const forget = jobs.watch(id, () => seen.push(`${jobs.get(id).state} ${jobs.get(id).step}`));
    work.context?.progress("one", 0.25);
    work.context?.progress("one", 0.5);
    work.context?.progress("two".padEnd(1_000, "!"));
    expect(jobs.get(id)).toMatchObject({ fraction: null, lines: ["one", "two".padEnd(200, "!")] });
    for (let line = 0; line < 100; line++) work.context?.progress(`line ${line}`);
    expect(jobs.get(id).lines).toHaveLength(50);
    await work.end();
    work.context?.progress("too late");
    expect(jobs.get(id)).toMatchObject({ state: "done", fraction: 1, step: "line 99", error: null });
    expect([seen.at(-1), work.released]).toEqual(["done line 99", 1]);
    forget();
  });

  it.each([
    [new SquashError("build_failed", "the tar file is damaged"), "build_failed", "the tar file is damaged", 0],
    [Object.assign(new Error("ENOSPC: no space left"), { errno: -28 }), "build_failed", "ENOSPC: no space left", 0],
    [new TypeError("secret of the code"), "internal", "squashd met a bug; its log says more", 1],
  ])("that fails says why: %s", async (error, code, message, reported) => {
    const work = new Work();
    const { id } = jobs.start(work.plan);
    await work.end(error);
    expect(jobs.get(id)).toMatchObject({ state: "failed", code, error: message });
    expect([bugs.length, work.released]).toEqual([reported, 1]);
  });

  it("waits for its turn, in the order in which they came, and is refused where too many do", async () => {
    const works = Array.from({ length: 5 }, () => new Work());
    for (const { plan } of works.slice(0, 4)) jobs.start(plan);
    expect(states()).toEqual(["job-4 queued", "job-3 queued", "job-2 running", "job-1 running"]);
    expect(() => jobs.start(works[4]!.plan)).toThrow(expect.objectContaining({ code: "job_limit" }));
    expect(works[4]!.released).toBe(1);
    await works[1]!.end();
    expect(states()).toEqual(["job-4 queued", "job-3 running", "job-2 done", "job-1 running"]);
    jobs.start(new Work().plan);
  });

  it("that is cancelled ends before that is answered; one that waits never begins", async () => {
    const works = Array.from({ length: 3 }, () => new Work());
    for (const { plan } of works) jobs.start(plan);
    await jobs.remove("job-3");
    expect([works[2]!.context, works[2]!.released]).toEqual([null, 1]);
    await jobs.remove("job-1");
    expect(states()).toEqual(["job-3 cancelled", "job-2 running", "job-1 cancelled"]);
    expect(jobs.get("job-1")).toMatchObject({ error: "it was cancelled", code: "cancelled" });
    await jobs.remove("job-1");
    expect(() => jobs.get("job-1")).toThrow(expect.objectContaining({ code: "job_not_found" }));
    await expect(jobs.remove("job-1")).rejects.toMatchObject({ code: "job_not_found" });
  });

  it("stays listed when it is over, with the newest few others", async () => {
    for (let turn = 0; turn < 6; turn++) {
      const work = new Work();
      jobs.start(work.plan);
      await work.end();
    }
    expect(states()).toEqual(["job-6 done", "job-5 done", "job-4 done"]);
  });

  it("ends at a shutdown, and none begins any more", async () => {
    const works = Array.from({ length: 3 }, () => new Work());
    for (const { plan } of works) jobs.start(plan);
    await jobs.close();
    expect(states()).toEqual(["job-3 cancelled", "job-2 cancelled", "job-1 cancelled"]);
    expect(works.map(({ released }) => released)).toEqual([1, 1, 1]);
    expect(works[2]!.context).toBe(null);
    expect(() => jobs.start(new Work().plan)).toThrow(expect.objectContaining({ code: "shutting_down" }));
    expect(bugs).toEqual([]);
  });
});

import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { inParallel } from "./pool.js";

describe("work in parallel", () => {
  it("is done for each, so many at a time and not more, and no more is asked for than begins", async () => {
    let [running, most, asked] = [0, 0, 0];
    const done: number[] = [];
    const tasks = function* (): Generator<number> {
      for (; asked < 20; asked++) {
        expect(running).toBeLessThan(3);
        yield asked;
      }
    };
    await inParallel(tasks(), 3, async (task) => {
      most = Math.max(most, ++running);
      await sleep(task % 4);
      running--;
      done.push(task);
    });
    expect(most).toBe(3);
    expect(done.toSorted((a, b) => a - b)).toEqual(Array.from({ length: 20 }, (_, index) => index));
  });

  it("ends with the first failure, once those that run are over, and begins no more", async () => {
    const begun: number[] = [];
    let over = 0;
    const work = async (task: number): Promise<void> => {
      begun.push(task);
      await sleep(task === 1 ? 1 : 20);
      over++;
      if (task < 3) throw new Error(`task ${task}`);
    };
    await expect(inParallel([0, 1, 2, 3, 4, 5, 6], 3, work)).rejects.toThrow("task 1");
    expect(over).toBe(begun.length);
    expect(begun).toEqual([0, 1, 2]);
  });

  it("fails as what it is given fails, once those that run are over", async () => {
    let over = 0;
    const tasks = async function* (): AsyncGenerator<number> {
      yield await Promise.resolve(1);
      throw new Error("no more");
    };
    const work = async (): Promise<void> => {
      await sleep(10);
      over++;
    };
    await expect(inParallel(tasks(), 4, work)).rejects.toThrow("no more");
    expect(over).toBe(1);
  });

  it("ends what it is given, also where it fails before that has ended", async () => {
    let isEnded = false;
    const tasks = function* (): Generator<number> {
      try {
        for (let task = 0; ; task++) yield task;
      } finally {
        isEnded = true;
      }
    };
    await expect(inParallel(tasks(), 2, () => Promise.reject(new Error("bad")))).rejects.toThrow("bad");
    expect(isEnded).toBe(true);
  });
});

import { readdirSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { CrashPoints, momentsOf, watchedEnv, type Moment } from "../support/crash-points.js";
import { codeOf, Trials, type Trial } from "../support/crash-trials.js";
import { lacks } from "../support/needs.js";
import { useSquashd } from "../support/own-squashd.js";
import type { TestSquashd } from "../support/squashd.js";

const backends = ["tmpfs", "loop", "btrfs"] as const;

/** Nothing is left that nobody has, and what is there works. */
async function settle(squashd: TestSquashd): Promise<void> {
  const { client, dataDir } = squashd;
  await expect
    .poll(async () => [...new Set((await client.list()).map(({ state }) => state))], { timeout: 20_000 })
    .toEqual(["ready"]);
  expect(await client.collect({ dry_run: true })).toEqual({ images: [], files: [], bytes: 0 });
  const ids = (await client.list()).map(({ id }) => id).toSorted();
  expect(readdirSync(join(dataDir, "sandboxes")).toSorted()).toEqual(ids);
  for (const id of ids) {
    const files = readdirSync(join(dataDir, "sandboxes", id)).filter((name) => name.startsWith("upper"));
    expect(
      files.filter((name) => !name.endsWith(".img")),
      id,
    ).toHaveLength(1);
  }
  const isDraft = (path: string): boolean => /(^|\/)\.(?!meta)|\.tmp|^cache\/(mkbase|job)-/.test(path);
  // the upkeep may be about to write one
  await expect
    .poll(() => readdirSync(dataDir, { recursive: true, encoding: "utf8" }).filter((path) => isDraft(path)))
    .toEqual([]);
}

/** What was cut off was not begun or has come to its end, and can be asked for again. */
async function tryAgain(trial: Trial): Promise<void> {
  const found = await trial.outcome();
  expect(await codeOf(trial.begin())).toBe(found === "before" ? "done" : trial.again);
  expect(await trial.outcome()).toBe("after");
}

describe.skipIf(lacks("root", "btrfs")).each(backends)("kill -9 of squashd, uppers on %s,", (backend) => {
  const squashd = useSquashd({
    env: {
      ...watchedEnv,
      SQUASH_POOL_SIZE: "0",
      SQUASH_UPPER_BACKEND: backend,
      SQUASH_UPPER_LIMIT_MB: "16",
      SQUASH_POOL_MB: "512",
    },
  });

  it("between any two steps of an operation leaves it undone or done", { timeout: 600_000 }, async () => {
    const points = new CrashPoints(squashd);
    const trials = new Trials(squashd);
    const all: Trial[] = backend === "tmpfs" ? [...trials.ofFiles(), ...trials.ofModules()] : trials.ofFiles();
    const moments = new Map<Trial, Moment[]>();
    for (const trial of all) {
      // the first time some take further steps, such as checking a module
      for (const run of ["first", "second"]) {
        await trial.prepare();
        const steps = await points.record(trial.operation, () => trial.begin());
        expect(await trial.outcome(), `${trial.operation}, ${run}`).toBe("after");
        moments.set(trial, momentsOf(steps));
      }
    }
    for (const [trial, list] of moments) console.log(trial.operation, list.length);
    const failed = new Map<Trial, string>(); // such a one has no state to go on from
    const lives = Math.max(...[...moments.values()].map((list) => list.length));
    for (let life = 0; life < lives; life++) {
      const cut = all.flatMap((trial) => {
        const moment = moments.get(trial)?.[life];
        return moment === undefined || failed.has(trial) ? [] : [{ trial, moment }];
      });
      for (const { trial } of cut) await trial.prepare();
      points.stopAt(Object.fromEntries(cut.map(({ trial, moment }) => [trial.operation, moment.place])));
      const t0 = Date.now();
      const ends = cut.map(({ trial }) => codeOf(trial.begin()));
      const stopped = await points.stopped(cut.length, Promise.race(ends));
      const t1 = Date.now();
      await squashd.end("SIGKILL");
      const codes = await Promise.all(ends);
      points.clear();
      await squashd.start();
      const t2 = Date.now();
      await settle(squashd);
      for (const [at, { trial, moment }] of cut.entries()) {
        try {
          expect(stopped, "was not there").toContain(trial.operation);
          expect(codes[at]).toBe("ConnectionError");
          await tryAgain(trial);
        } catch (error) {
          failed.set(trial, `${trial.operation} cut off at ${moment.name}: ${String(error)}`);
        }
      }
      console.log(life, "stop", t1 - t0, "start", t2 - t1, "check", Date.now() - t2);
    }
    expect([...failed.values()]).toEqual([]);
  });
});

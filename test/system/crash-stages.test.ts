import { readdirSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { CrashPoints, momentsOf, watchedEnv } from "../support/crash-points.js";
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
  expect(readdirSync(join(dataDir, "modules")).filter((name) => /^\.|tmp/.test(name))).toEqual([]);
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
    for (const trial of all) await trial.prepare();
    const steps = await points.record(async () => {
      for (const trial of all) {
        await trial.begin();
        expect(await trial.outcome(), trial.operation).toBe("after");
      }
    });
    const moments = new Map(all.map((trial) => [trial, momentsOf(steps.get(trial.operation) ?? [])]));
    for (const [trial, list] of moments)
      console.log(trial.operation, list.length, "\n" + list.map(({ name }) => "   " + name).join("\n"));
    const lives = Math.max(...[...moments.values()].map((list) => list.length));
    for (let life = 0; life < lives; life++) {
      const cut = all.flatMap((trial) => {
        const moment = moments.get(trial)?.[life];
        return moment === undefined ? [] : [{ trial, moment }];
      });
      for (const { trial } of cut) await trial.prepare();
      points.stopAt(Object.fromEntries(cut.map(({ trial, moment }) => [trial.operation, moment.place])));
      const t0 = Date.now();
      const ends = cut.map(({ trial }) => codeOf(trial.begin()));
      const stopped = await points.stopped(cut.length, Promise.race(ends));
      const t1 = Date.now();
      await squashd.end("SIGKILL");
      expect(stopped.toSorted()).toEqual(cut.map(({ trial }) => trial.operation).toSorted());
      expect([...new Set(await Promise.all(ends))]).toEqual(["ConnectionError"]);
      points.clear();
      await squashd.start();
      const t2 = Date.now();
      await settle(squashd);
      for (const { trial, moment } of cut) {
        const about = `${trial.operation} cut off at ${moment.name}`;
        const found = await trial.outcome().catch((error: unknown) => {
          throw new Error(about, { cause: error });
        });
        expect(await codeOf(trial.begin()), about).toBe(found === "before" ? "done" : trial.again);
        expect(await trial.outcome(), about).toBe("after");
      }
      console.log(life, "stop", t1 - t0, "start", t2 - t1, "check", Date.now() - t2);
    }
  });
});

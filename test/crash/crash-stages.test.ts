import { readdirSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { CrashPoints, momentsOf, requestsOf, watchedEnv } from "../support/crash-points.js";
import type { Fate, Step } from "../support/crash-orders.js";
import { codeOf, Trials, type Trial } from "../support/crash-trials.js";
import { DeepChain } from "../support/deep-chain.js";
import { lacks } from "../support/needs.js";
import { useSquashd } from "../support/own-squashd.js";
import type { TestSquashd } from "../support/squashd.js";

/** With tmpfs everything is cut off; with the others what is done differently there. */
const backends = ["tmpfs", "loop", "btrfs"] as const;
/** One place of so many is tried in a run, from another one on each time; 1 for all of them. */
const stride = Number(process.env["TEST_STRIDE"] ?? 1);
const seed = Number(process.env["TEST_SEED"] ?? Date.now() % 2 ** 31);
const chosen = <T>(places: readonly T[]): T[] => places.filter((_, at) => (at + seed) % stride === 0);

/** squashd gives up when there are more than twenty within a minute */
const deathsOfSqHost = 15;
/** of requests whose sq-host died */
const clearCodes = ["done", "kernel", "create_failed", "change_failed", "snapshot_failed"];

/** Nothing is left that nobody has, and all sandboxes work. */
async function settle({ client, dataDir }: TestSquashd): Promise<void> {
  await expect
    .poll(async () => (await client.list()).filter(({ state }) => state !== "ready"), { timeout: 20_000 })
    .toEqual([]);
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

/** A trial and a place in its operation. */
interface Cut {
  readonly trial: Trial;
  readonly place: string;
  /** for people */
  readonly name: string;
}

/** Goes through the places of all trials, one of each at a time. What has failed once has no state to go on from. Returns what failed. */
async function goThrough(
  cuts: ReadonlyMap<Trial, readonly Omit<Cut, "trial">[]>,
  round: (now: readonly Cut[], at: number) => Promise<(cut: Cut) => Promise<void>>,
): Promise<string[]> {
  const failed = new Map<Trial, string>();
  const rounds = Math.max(...[...cuts.values()].map((list) => list.length));
  for (let at = 0; at < rounds; at++) {
    const now = [...cuts].flatMap(([trial, places]) => {
      const place = places[at];
      return place === undefined || failed.has(trial) ? [] : [{ trial, ...place }];
    });
    for (const { trial } of now) await trial.prepare();
    const check = await round(now, at);
    for (const cut of now) {
      const { trial, name } = cut;
      await check(cut).catch((error: unknown) => failed.set(trial, `${trial.operation}, ${name}: ${String(error)}`));
    }
  }
  return [...failed.values()];
}

describe.skipIf(lacks("root", "btrfs")).each(backends)("with uppers on %s", (backend) => {
  const squashd = useSquashd({
    env: {
      ...watchedEnv,
      SQUASH_POOL_SIZE: "0", // so that each operation makes its own cell
      SQUASH_UPPER_BACKEND: backend,
      SQUASH_UPPER_LIMIT_MB: "16",
      SQUASH_POOL_MB: "512",
    },
  });
  const points = new CrashPoints(squashd);
  const only = process.env["TEST_TRIAL"] ?? ""; // a part of an operation's name, to try that alone
  const all = new Trials(squashd).of(backend).filter(({ operation }) => operation.includes(only));
  const steps = new Map<Trial, Step[]>();

  it("everything works while it is watched", async () => {
    console.log(`seed ${seed}, one place of ${stride} (set TEST_SEED and TEST_STRIDE)`);
    // the first time some take further steps, such as checking a module, or mounting one that no sandbox has yet
    for (const run of ["first", "second"]) {
      for (const trial of all) {
        await trial.prepare();
        steps.set(trial, await points.record(trial.operation, () => trial.begin()));
        expect(await trial.outcome(), `${trial.operation}, ${run}`).toBe("after");
      }
    }
    for (const [trial, list] of steps) expect(list.length, trial.operation).toBeGreaterThan(3);
  });

  it(
    "a kill -9 of squashd between any two steps leaves each operation undone or done",
    { timeout: 600_000 },
    async () => {
      const cuts = new Map([...steps].map(([trial, list]) => [trial, chosen(momentsOf(list))]));
      const failed = await goThrough(cuts, async (now) => {
        points.stopAt(Object.fromEntries(now.map(({ trial, place }) => [trial.operation, place])));
        const ends = new Map(now.map(({ trial }) => [trial, codeOf(trial.begin())]));
        const stopped = await points.stopped([...ends.values()]);
        await squashd.end("SIGKILL");
        await Promise.all(ends.values());
        points.clear();
        await squashd.start();
        await settle(squashd);
        return async ({ trial }) => {
          expect(stopped, "was never there").toContain(trial.operation);
          expect(await ends.get(trial)).toBe("ConnectionError");
          await tryAgain(trial);
        };
      });
      expect(failed).toEqual([]);
    },
  );

  it(
    "a kill -9 of sq-host at any request leaves each operation undone or done, and squashd goes on",
    { timeout: 600_000 },
    async () => {
      const cuts = new Map(
        [...steps].map(([trial, list]) => [trial, chosen(requestsOf(list)).map((place) => ({ place, name: place }))]),
      );
      const failed = await goThrough(cuts, async (now, at) => {
        // each request with one fate, the fates in turn, with tmpfs the other way round
        const fate: Fate = (at % 2 === 0) === (backend === "tmpfs") ? "unread" : "unanswered";
        if (at % deathsOfSqHost === 0) {
          await squashd.end("SIGKILL");
          await squashd.start();
        }
        points.dieAt(fate, Object.fromEntries(now.map(({ trial, place }) => [trial.operation, place])));
        const ends = new Map(now.map(({ trial }) => [trial, codeOf(trial.begin())]));
        const stopped = await points.stopped([...ends.values()]);
        if (stopped.length < now.length) await squashd.end("SIGKILL");
        await Promise.all(ends.values());
        points.clear();
        if (stopped.length < now.length) await squashd.start();
        await settle(squashd);
        return async ({ trial }) => {
          const code = await ends.get(trial);
          expect(stopped, "was never there").toContain(trial.operation);
          expect(clearCodes).toContain(code);
          if (code === "done") expect(await trial.outcome()).toBe("after");
          await tryAgain(trial);
        };
      });
      expect(failed).toEqual([]);
    },
  );
});

describe.skipIf(lacks("root"))("while long chains of snapshots are merged", () => {
  const squashd = useSquashd({ env: { ...watchedEnv, SQUASH_SUBNET: "none", SQUASH_UPPER_LIMIT_MB: "16" } });
  const points = new CrashPoints(squashd);
  const chain = new DeepChain(squashd);
  const upkeep = "upkeep";
  const never = new Promise(() => undefined);

  /** The next squashd begins the upkeep when it starts, and stops there at that place. */
  async function restartAt(place: string): Promise<void> {
    await squashd.end("SIGKILL");
    points.stopAt({ [upkeep]: place });
    await squashd.start();
  }

  /** What the last one has left is whole. */
  async function check(): Promise<void> {
    await chain.check();
    expect(await squashd.client.collect({ dry_run: true })).toEqual({ images: [], files: [], bytes: 0 });
  }

  it("a kill -9 of squashd between any two steps loses no file of any of them", { timeout: 600_000 }, async () => {
    await restartAt("begun #0");
    await chain.make();
    await squashd.end("SIGKILL");
    const steps = await points.record(upkeep, async () => {
      await squashd.start();
      await chain.rest();
    });
    await check();
    const moments = momentsOf(steps);
    expect(moments.length).toBeGreaterThan(10);
    for (const { place, name } of chosen(moments)) {
      if (await chain.isMerged()) {
        await restartAt("begun #0");
        await check();
        await chain.make();
      }
      await restartAt(place);
      expect(await points.stopped([never]), name).toEqual([upkeep]);
      await check();
    }
    await squashd.end("SIGKILL");
    points.clear();
    await squashd.start();
    await chain.rest();
    await chain.check();
    await settle(squashd);
  });
});

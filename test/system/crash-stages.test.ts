import { readdirSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { CrashPoints, momentsOf, requestsOf, watchedEnv } from "../support/crash-points.js";
import type { Fate, Step } from "../support/crash-orders.js";
import { goThrough, type Cut, type Verdict } from "../support/crash-rounds.js";
import { codeOf, Trials, type Trial } from "../support/crash-trials.js";
import { DeepChain } from "../support/deep-chain.js";
import { lacks } from "../support/needs.js";
import { useSquashd } from "../support/own-squashd.js";
import { patience } from "../support/patience.js";
import type { TestSquashd } from "../support/squashd.js";

/** With tmpfs everything is cut off; with the others what is done differently there. */
const backends = ["tmpfs", "loop", "btrfs"] as const;
/** One place of so many is tried in a run, from another one on each time; `npm run test:crash` tries all. */
const stride = Number(process.env["TEST_STRIDE"] ?? 6);
/** for each test; on a machine that is busy fewer are tried */
const limits = { seconds: process.env["TEST_STRIDE"] === undefined ? 8 * patience : Infinity };
const seed = Number(process.env["TEST_SEED"] ?? Date.now() % 2 ** 31);
const timeout = 1_200_000 * patience;

/** squashd gives up when there are more than twenty within a minute */
const deathsOfSqHost = 15;
/** of requests whose sq-host died */
const clearCodes = ["done", "kernel", "create_failed", "change_failed", "snapshot_failed"];

/** One place of each `stride`, from any of them on. */
function chosen<T>(places: readonly T[]): T[] {
  const some = places.filter((_, at) => (at + seed) % Math.min(stride, places.length) === 0);
  const first = seed % some.length;
  return [...some.slice(first), ...some.slice(0, first)];
}

/** Nothing is left that nobody has, and all sandboxes work; nothing must be under way. */
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
  const files = readdirSync(dataDir, { recursive: true, encoding: "utf8" });
  expect(files.filter((path) => isDraft(path))).toEqual([]);
}

/** What was cut off was not begun or has come to its end, and can be asked for again. */
async function tryAgain(trial: Trial): Promise<void> {
  const found = await trial.outcome();
  expect(await codeOf(trial.begin())).toBe(found === "before" ? "done" : trial.again);
  expect(await trial.outcome()).toBe("after");
}

/** Nothing was lost, and nearly all places were reached. */
function judge({ failed, rounds, tried, unreached, isTooMany }: Verdict): void {
  console.log(`${tried} places in ${rounds} rounds`);
  for (const name of unreached) console.log(`was never there: ${name}`);
  expect(failed).toEqual([]);
  expect(isTooMany, `were never there: ${unreached.join("; ")}`).toBe(false);
}

function placesOf(cuts: readonly Cut[]): Record<string, string> {
  return Object.fromEntries(cuts.map(({ trial, place }) => [trial.operation, place]));
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
        await points.rest();
        steps.set(trial, await points.record(trial.operation, () => trial.begin()));
        expect(await trial.outcome(), `${trial.operation}, ${run}`).toBe("after");
      }
    }
    for (const [trial, list] of steps) expect(list.length, trial.operation).toBeGreaterThan(3);
  });

  it("a kill -9 of squashd between any two steps leaves each operation undone or done", { timeout }, async () => {
    const cuts = [...steps].flatMap(([trial, list]) => momentsOf(list).map((moment) => ({ trial, ...moment })));
    const verdict = await goThrough(chosen(cuts), limits, async (now, waitMs) => {
      await points.rest();
      points.stopAt(placesOf(now));
      const ends = new Map(now.map(({ trial }) => [trial, codeOf(trial.begin())]));
      const stopped = await points.stopped([...ends.values()], waitMs);
      await squashd.end("SIGKILL");
      await Promise.all(ends.values());
      points.clear();
      await squashd.start();
      await points.rest();
      await settle(squashd);
      const wasReached = ({ trial }: Cut): boolean => stopped.includes(trial.operation);
      return {
        wasReached,
        check: async (cut) => {
          if (wasReached(cut)) expect(await ends.get(cut.trial)).toBe("ConnectionError");
          await tryAgain(cut.trial);
        },
      };
    });
    judge(verdict);
  });

  it(
    "a kill -9 of sq-host at any request leaves each operation undone or done, and squashd goes on",
    { timeout },
    async () => {
      const cuts = [...steps].flatMap(([trial, list]) =>
        requestsOf(list).map((place) => ({ trial, place, name: place })),
      );
      let rounds = 0;
      const verdict = await goThrough(chosen(cuts), limits, async (now, waitMs) => {
        // the fates in turn, with tmpfs the other way round
        const fate: Fate = (rounds % 2 === 0) === (backend === "tmpfs") ? "unread" : "unanswered";
        if (rounds++ % deathsOfSqHost === 0) {
          await squashd.end("SIGKILL");
          await squashd.start();
        }
        await points.rest();
        points.dieAt(fate, placesOf(now));
        const ends = new Map(now.map(({ trial }) => [trial, codeOf(trial.begin())]));
        const stopped = await points.stopped([...ends.values()], waitMs);
        // it dies when all are there
        const hasDied = stopped.length === now.length;
        if (!hasDied) await squashd.end("SIGKILL");
        await Promise.all(ends.values());
        points.clear();
        if (!hasDied) await squashd.start();
        await points.rest();
        await settle(squashd);
        return {
          wasReached: () => hasDied,
          check: async ({ trial }) => {
            const code = await ends.get(trial);
            if (hasDied) expect(clearCodes).toContain(code);
            if (code === "done") expect(await trial.outcome()).toBe("after");
            await tryAgain(trial);
          },
        };
      });
      judge(verdict);
    },
  );
});

describe.skipIf(lacks("root"))("while long chains of snapshots are merged", () => {
  const squashd = useSquashd({ env: { ...watchedEnv, SQUASH_SUBNET: "none", SQUASH_UPPER_LIMIT_MB: "16" } });
  const points = new CrashPoints(squashd);
  const chain = new DeepChain(squashd);
  const upkeep = "upkeep";
  const never = new Promise(() => undefined);

  /** What the last one has left is whole. */
  async function check(): Promise<void> {
    await chain.check();
    expect(await squashd.client.collect({ dry_run: true })).toEqual({ images: [], files: [], bytes: 0 });
  }

  /** Of which the upkeep does nothing. */
  async function restartIdle(): Promise<void> {
    await squashd.end("SIGKILL");
    points.stopAt({ [upkeep]: "begun #0" });
    await squashd.start();
  }

  /** No squashd any more, and a chain of which nothing has been done. */
  async function prepare(): Promise<void> {
    if (await chain.isMerged()) await chain.make();
    await squashd.end("SIGKILL");
    chain.unseal();
  }

  it("a kill -9 of squashd between any two steps loses no file of any of them", { timeout }, async () => {
    await restartIdle();
    await prepare();
    const steps = await points.record(upkeep, async () => {
      await squashd.start();
      await points.rest();
    });
    expect(await chain.isMerged()).toBe(true);
    await restartIdle();
    await check();
    const trial = { operation: upkeep, prepare };
    const cuts = momentsOf(steps).map((moment) => ({ trial, ...moment }));
    expect(cuts.length).toBeGreaterThan(10);
    const verdict = await goThrough(chosen(cuts), limits, async ([cut], waitMs) => {
      points.stopAt({ [upkeep]: cut?.place ?? "" });
      await squashd.start();
      const stopped = await points.stopped([never], waitMs);
      await restartIdle();
      return { wasReached: () => stopped.includes(upkeep), check };
    });
    judge(verdict);
    await squashd.end("SIGKILL");
    points.clear();
    await squashd.start();
    await points.rest();
    await chain.check();
    await settle(squashd);
  });
});

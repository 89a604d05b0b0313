import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { JobInfo, JobRequest, Sandbox } from "@squash/sdk";
import { hostState, settledState, type HostState } from "../../support/leaks.js";
import { lacks } from "../../support/needs.js";
import { patience } from "../../support/patience.js";
import { randomNumbers } from "../../support/random-numbers.js";
import { pauseMs, Tally } from "../../support/s3/chaos-machine.js";
import { lookIn, newWrite, writeIn } from "../../support/s3/chaos-writer.js";
import { S3Server } from "../../support/s3/s3-server.js";
import { squashdWithBucket } from "../../support/s3/squashd-with-bucket.js";
import type { TestSquashd } from "../../support/squashd.js";

const rounds = Number(process.env["TEST_RUNS"] ?? 4);
const id = "chaos-plain";
const layers = ["000-base-test"];
const deadlineMs = 20_000 * patience;

async function done({ client }: TestSquashd, request: JobRequest): Promise<JobInfo> {
  const signal = AbortSignal.timeout(deadlineMs);
  let last = await client.startJob(request);
  for await (const next of client.watchJob(last.id, { signal })) last = next;
  return last;
}

async function inTheEnd(squashd: TestSquashd, request: JobRequest): Promise<void> {
  for (const end = Date.now() + deadlineMs; ; await pauseMs(500)) {
    const { state, error } = await done(squashd, request);
    if (state === "done") return;
    if (Date.now() > end) throw new Error(`${request.kind}: ${error}`);
  }
}

interface Kept {
  readonly label: string;
  readonly lines: readonly string[];
}

describe.skipIf(lacks("root"))(
  "kill -9 while modules and snapshots are sent and fetched, and the bucket is swept",
  () => {
    const seed = Number(process.env["TEST_SEED"] ?? Date.now() % 2 ** 31);
    const random = randomNumbers(seed);
    let server: S3Server;
    let first: TestSquashd;
    let second: TestSquashd;
    let sweeper: TestSquashd;
    let all: TestSquashd[];
    let before: HostState;

    beforeAll(async () => {
      console.log(`seed ${seed} (set TEST_SEED to repeat)`);
      server = await S3Server.start();
      const env = { SQUASH_UPPER_LIMIT_MB: "64", SQUASH_POOL_SIZE: "1" };
      all = [first, second, sweeper] = [0, 1, 2].map(() => squashdWithBucket(server, { env })) as [
        TestSquashd,
        TestSquashd,
        TestSquashd,
      ];
      before = hostState(all.map(({ mark }) => mark));
      await Promise.all(all.map((squashd) => squashd.start()));
    });

    afterAll(async () => {
      for (const squashd of all) await squashd[Symbol.asyncDispose]();
      await server[Symbol.asyncDispose]();
      const marks = all.map(({ mark }) => mark);
      expect(await settledState(before, marks)).toEqual(before);
    });

    async function kill(squashd: TestSquashd, work: readonly Promise<unknown>[]): Promise<void> {
      await pauseMs(random(random(2) === 0 ? 400 : 4_000));
      await squashd.end("SIGKILL");
      await Promise.allSettled(work);
      await squashd.start();
    }

    async function sandboxOf({ client }: TestSquashd): Promise<Sandbox> {
      const there = (await client.list()).some((one) => one.id === id);
      if (!there) await client.create({ id, layers, memory_mb: 128 });
      await expect.poll(async () => (await client.get(id)).state, { timeout: deadlineMs }).toBe("ready");
      return client.sandbox(id);
    }

    it("leaves all that was acknowledged in the bucket, whole", { timeout: 250_000 }, async () => {
      const kept: Kept[] = [];
      const tally = new Tally();
      const over = new AbortController();
      const sweeping = (async () => {
        while (!over.signal.aborted) {
          const { state, error } = await done(sweeper, { kind: "s3-gc", grace_s: 0 });
          tally.add(`sweep ${state === "done" ? state : error}`);
          await pauseMs(300 + random(1_500));
        }
      })();
      sweeping.catch(() => undefined); // it is waited for below
      const note = async (what: string, work: Promise<unknown>): Promise<void> => {
        tally.add(
          `${what} ${await work.then(
            () => "ok",
            () => "cut off",
          )}`,
        );
      };
      const keep = async (sandbox: Sandbox, label: string): Promise<void> => {
        const lines = await writeIn(sandbox, newWrite(random(2 ** 24), 1 + random(100_000)));
        await sandbox.snapshot({ label }, { wait: "durable", deadlineMs });
        kept.push({ label, lines });
      };
      for (let round = 0; round < rounds; round++) {
        const sandbox = await sandboxOf(first);
        await note("snapshot", keep(sandbox, `whole-${round}`));
        const other = await sandboxOf(second);
        const { label } = kept[random(kept.length)] ?? { label: "" };
        await second.client.removeModule("100-extra").catch(() => undefined);
        await Promise.all([
          kill(first, [
            note("snapshot", keep(sandbox, `cut-${round}`)),
            note("push", done(first, { kind: "push", module: "100-extra", replace: true })),
            note("sync", done(first, { kind: "sync" })),
          ]),
          kill(second, [
            note("restore", other.restore(label, {}, { deadlineMs })),
            note("pull", done(second, { kind: "pull", module: "100-extra" })),
            note("pull all", done(second, { kind: "pull", sandbox: id })),
          ]),
        ]);
      }
      over.abort();
      await sweeping;
      console.log(`${kept.length} kept in ${rounds} rounds: ${tally.toString()}`);
      await inTheEnd(sweeper, { kind: "s3-gc", grace_s: 0 });
      await inTheEnd(sweeper, { kind: "s3-verify", deep: true });
      const fresh = await sandboxOf(sweeper);
      for (const { label, lines } of kept) {
        await fresh.restore(label);
        const last = lines.at(-1)?.split(" ")[1];
        expect(await lookIn(fresh), label).toEqual({ lines, content: last });
      }
      await inTheEnd(second, { kind: "pull", module: "100-extra" });
      expect(kept.length).toBeGreaterThan(0);
      expect(tally.counts.get("sweep done") ?? 0).toBeGreaterThan(0);
    });
  },
);

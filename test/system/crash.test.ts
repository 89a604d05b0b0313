import { readdirSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { isSquashError, type Sandbox } from "@squash/sdk";
import { lacks } from "../support/needs.js";
import { useSquashd } from "../support/own-squashd.js";
import { randomNumbers } from "../support/random-numbers.js";

const rounds = Number(process.env["TEST_RUNS"] ?? 5);
const extra = "100-extra";

const squashd = useSquashd({ env: { SQUASH_UPPER_LIMIT_MB: "16" } });
const { client } = squashd;

async function print(sandbox: Sandbox, command: string): Promise<string> {
  const { exit_code, stdout, stderr } = await sandbox.exec(command);
  expect({ exit_code, stderr }).toEqual({ exit_code: 0, stderr: "" });
  return stdout;
}

/** A sandbox for each thing that is cut off. */
interface Bed {
  readonly snapped: Sandbox;
  readonly restored: Sandbox;
  readonly forked: Sandbox;
  readonly changed: Sandbox;
  readonly thinned: Sandbox;
}

const names = ["snapped", "restored", "forked", "changed", "thinned"] as const;

async function makeBed(): Promise<Bed> {
  const bed: Partial<Record<keyof Bed, Sandbox>> = {};
  for (const id of names) {
    const sandbox = await client.create({ id, layers: ["000-base-test"] });
    await print(sandbox, "head -c 300000 /dev/urandom >/data; echo one >/file");
    await sandbox.snapshot({ label: "one" });
    await print(sandbox, "echo two >/file; rm -r /home; mkfifo /pipe");
    await sandbox.snapshot({ label: "two" });
    bed[id] = sandbox;
  }
  return bed as Bed;
}

/** Everything at once; what is cut off fails. Returns the codes of those that did. */
async function doAll(bed: Bed, round: number, isActive: boolean): Promise<string[]> {
  const all = await Promise.allSettled([
    bed.snapped.snapshot({ label: `round-${round}` }),
    bed.restored.restore(round % 2 === 0 ? "one" : "two"),
    bed.forked.fork({ target_id: `fork-${round}` }),
    isActive ? bed.changed.deactivate(extra) : bed.changed.activate(extra),
    bed.thinned.deleteSnapshot("one"),
    client.collect(),
  ]);
  return all.flatMap((one) =>
    one.status === "rejected" ? [isSquashError(one.reason) ? one.reason.code : "lost"] : [],
  );
}

const shows = "cat /file; ls -d /home /pipe 2>/dev/null; wc -c </data";
const one = "one\n/home\n300000\n";
const two = "two\n/pipe\n300000\n";

/** Each is as it was before or as it is after, and nothing else is there. */
async function check(bed: Bed, round: number): Promise<void> {
  await expect
    .poll(async () => [...new Set((await client.list()).map(({ state }) => state))], { timeout: 20_000 })
    .toEqual(["ready"]);
  const ids = (await client.list()).map(({ id }) => id);
  expect([...names, `fork-${round}`]).toEqual(expect.arrayContaining(ids));
  expect(ids).toEqual(expect.arrayContaining([...names]));
  for (const id of ids.filter((id) => id.startsWith("fork-"))) {
    expect(await print(client.sandbox(id), `${shows}; hostname`)).toBe(`${two}${id}\n`);
    await client.sandbox(id).destroy();
  }
  for (const sandbox of [bed.snapped, bed.forked, bed.changed, bed.thinned])
    expect(await print(sandbox, shows)).toBe(two);
  expect([one, two]).toContain(await print(bed.restored, shows));
  const isActive = (await bed.changed.info()).layers.includes(extra);
  expect(await print(bed.changed, "cat /opt/extra/file 2>/dev/null || echo none")).toBe(
    isActive ? "from the extra layer\n" : "none\n",
  );
  for (const { label } of (await bed.snapped.history()).slice(2)) {
    await bed.snapped.restore(label);
    expect(await print(bed.snapped, shows)).toBe(two);
    await bed.snapped.deleteSnapshot(label);
  }
  if ((await bed.thinned.history()).length === 1) {
    await print(bed.thinned, "echo one >/file; mkdir /home; rm /pipe");
    await bed.thinned.snapshot({ label: "one" });
  } else await bed.thinned.restore("one");
  expect(await print(bed.thinned, shows)).toBe(one);
  await bed.thinned.restore("two");
  expect(await client.collect({ dry_run: true })).toEqual({ images: [], files: [], bytes: 0 });
  const home = join(squashd.dataDir, "sandboxes");
  expect(readdirSync(home).toSorted()).toEqual([...names].toSorted());
  for (const id of names)
    expect(
      readdirSync(join(home, id)).filter((name) => name.startsWith("upper")),
      id,
    ).toHaveLength(1);
}

describe.skipIf(lacks("root"))("kill -9 while stacks, snapshots and forks change", () => {
  it.each(["squashd", "sq-host"] as const)(
    "of %s at any moment leaves each as it was or as it was to be",
    { timeout: 300_000 },
    async (victim) => {
      const seed = Number(process.env["TEST_SEED"] ?? Date.now() % 2 ** 31);
      console.log(`seed ${seed} (set TEST_SEED to repeat)`);
      const random = randomNumbers(seed);
      const bed = await makeBed();
      let failed = 0;
      // how long it takes to do all of it tells when to cut it off
      const start = performance.now();
      expect(await doAll(bed, 0, false)).toEqual([]);
      const latestMs = Math.ceil(performance.now() - start);
      await check(bed, 0);
      for (let round = 1; round <= rounds; round++) {
        const { hostPid } = squashd;
        const isActive = (await bed.changed.info()).layers.includes(extra);
        const work = doAll(bed, round, isActive);
        await new Promise((done) => setTimeout(done, random(latestMs)));
        if (victim === "squashd") {
          await squashd.end("SIGKILL");
          failed += (await work).length;
          await squashd.start();
        } else {
          process.kill(hostPid, "SIGKILL");
          const codes = await work;
          failed += codes.length;
          const known = ["kernel", "create_failed", "change_failed", "snapshot_failed", "sandbox_broken"];
          expect(codes.filter((code) => !known.includes(code))).toEqual([]);
        }
        await check(bed, round);
      }
      expect(failed).toBeGreaterThan(0);
      for (const { id } of await client.list()) await client.sandbox(id).destroy();
    },
  );
});

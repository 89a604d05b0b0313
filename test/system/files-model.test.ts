import fc from "fast-check";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { anyOperation } from "../model/arbitrary.js";
import { makeModelModules } from "../model/modules.js";
import type { Directory } from "../model/nodes.js";
import type { Operation } from "../model/operations.js";
import { World, type Step } from "../model/world.js";
import { lacks } from "../support/needs.js";
import { useSquashd } from "../support/own-squashd.js";

/** what keeps uppers, and whether those survive a restart of the machine */
const backends = [
  { backend: "tmpfs", upperKind: "tmpfs", isDurable: false, seconds: 25 },
  { backend: "loop", upperKind: "ext4", isDurable: true, seconds: 15 },
] as const;

const fewestSteps = 500;

let contents: ReadonlyMap<string, Directory>;
let hasAttributes = false;
const squashd = useSquashd({
  env: { SQUASH_UPPER_LIMIT_MB: "32" },
  prepare: ({ dataDir }) => {
    contents = makeModelModules(join(dataDir, "modules"));
    return undefined;
  },
});

afterEach(async () => {
  await squashd.destroyAll();
});
const number = fc.nat(99);

function anyStep(isDurable: boolean): fc.Arbitrary<Step> {
  const weighted = (weight: number, arbitrary: fc.Arbitrary<Step>): fc.WeightedArbitrary<Step> => ({
    weight,
    arbitrary,
  });
  const operations = fc.array(anyOperation({ attributes: hasAttributes }), {
    minLength: 10,
    maxLength: 80,
    size: "max",
  });
  return fc.oneof(
    weighted(24, fc.record({ do: fc.constant("files"), sandbox: number, operations })),
    weighted(8, fc.record({ do: fc.constant("snapshot"), sandbox: number })),
    weighted(8, fc.record({ do: fc.constant("restore"), sandbox: number, snapshot: number })),
    weighted(4, fc.record({ do: fc.constant("toggle"), sandbox: number })),
    weighted(3, fc.record({ do: fc.constant("fork"), sandbox: number, snapshot: fc.option(number, { nil: null }) })),
    weighted(2, fc.record({ do: fc.constant("forget"), sandbox: number, snapshot: number })),
    weighted(2, fc.record({ do: fc.constant("collect") })),
    weighted(1, fc.record({ do: fc.constant("kill") })),
    weighted(1, fc.record({ do: fc.constant("killHost") })),
    ...(isDurable ? [weighted(1, fc.record({ do: fc.constant("reboot") }))] : []),
  );
}

const mode = 0o755;
/** ext4 refuses the last one, and changes the time of `low`: see `refuseToReplace`. */
const refusedByUpper: readonly Operation[][] = [
  [
    { do: "unlink", path: "low/one" },
    { do: "mkdir", path: "low/one", mode },
    { do: "mkdir", path: "dir/sub", mode },
    { do: "mkdir", path: "dir/sub/ä", mode },
  ],
  [{ do: "rename", path: "low/one", to: "dir/sub" }],
];
/** Where an image has no UUID of its own, overlayfs takes the names for two files, and answers ESTALE. */
const renamedOntoItself: readonly Step[] = [
  { do: "files", sandbox: 0, operations: [{ do: "create", path: "a", mode: 0o644 }] },
  { do: "snapshot", sandbox: 0 },
  { do: "restore", sandbox: 0, snapshot: 0 },
  {
    do: "files",
    sandbox: 0,
    operations: [
      { do: "link", path: "a", to: "one" },
      { do: "mkdir", path: "to", mode },
      { do: "rename", path: "a", to: "to/same" },
      // refused, but the kernel forgets the names below it
      { do: "mkdir", path: "other", mode },
      { do: "rename", path: "other", to: "to" },
      { do: "rename", path: "one", to: "to/same" },
    ],
  },
];

/** The whiteout of what was moved goes with a directory that the module covers; overlayfs would take original and copy for one file. */
const movedThenUncovered: readonly Step[] = [
  { do: "files", sandbox: 0, operations: [{ do: "rename", path: "low/deep/1", to: "low/one" }] },
  { do: "toggle", sandbox: 0 },
  { do: "files", sandbox: 0, operations: [{ do: "rename", path: "low/one", to: "dir/x" }] },
  {
    do: "files",
    sandbox: 0,
    operations: [
      { do: "remove", path: "low/deep" },
      { do: "write", path: "dir/x", offset: 4096, length: 10, seed: 167 },
    ],
  },
  { do: "toggle", sandbox: 0 },
];
/** The same of a file of the module, which comes back with it. */
const movedThenBack: readonly Step[] = [
  { do: "toggle", sandbox: 0 },
  {
    do: "files",
    sandbox: 0,
    operations: [
      { do: "rename", path: "top", to: "other" },
      { do: "write", path: "other", offset: 0, length: 10, seed: 5 },
    ],
  },
  { do: "toggle", sandbox: 0 },
  {
    do: "files",
    sandbox: 0,
    operations: [
      { do: "create", path: "top", mode: 0o600 },
      { do: "unlink", path: "top" },
    ],
  },
  { do: "toggle", sandbox: 0 },
  { do: "files", sandbox: 0, operations: [{ do: "write", path: "top", offset: 0, length: 7, seed: 6 }] },
];

describe.skipIf(lacks("root"))("files of sandboxes", () => {
  it.each(backends)(
    "with uppers of $backend are the model's after any sequence of operations, snapshots, restores, forks, modules and deaths",
    { timeout: 400_000 },
    async ({ backend, upperKind, isDurable, seconds }) => {
      await squashd.end();
      await squashd.start({ SQUASH_UPPER_BACKEND: backend });
      const probe = await squashd.client.create({ layers: ["000-base-test", "150-files"] });
      const { stdout } = await probe.exec(["/opt/tree", "/m"], { stdin: "attribute\tlow\tuser.one\tx\n" });
      hasAttributes = stdout.startsWith("0\n"); // tmpfs has had them since Linux 6.6
      const seed = Number(process.env["TEST_SEED"] ?? Date.now() % 2 ** 31);
      const world = new World(squashd, { contents, upperKind });
      console.log(`seed ${seed} (set TEST_SEED to repeat)`);
      const isRepeated = process.env["TEST_RUNS"] !== undefined;
      const deadline = performance.now() + (isRepeated ? 300_000 : seconds * 1000);
      // on a machine that is busy it takes longer
      const isOver = (): boolean => performance.now() > deadline && (isRepeated || world.done > fewestSteps);
      const run = fc.asyncProperty(fc.array(anyStep(isDurable), { minLength: 20, maxLength: 40 }), async (steps) => {
        if (isOver()) return;
        await world.start();
        for (const step of steps) if (!isOver()) await world.run(step);
        await world.finish();
      });
      const first = refusedByUpper.map((operations): Step => ({ do: "files", sandbox: 0, operations }));
      const examples: [Step[]][] = [first, renamedOntoItself, movedThenUncovered, movedThenBack].map((one) => [
        [...one],
      ]);
      const shrinks = process.env["TEST_SHRINK"] === "1";
      const numRuns = Number(process.env["TEST_RUNS"] ?? 100);
      await fc.assert(run, { seed, numRuns, examples, endOnFailure: !shrinks });
      console.log(`${world.done} steps with ${backend}`);
      if (!isRepeated) expect(world.done).toBeGreaterThan(fewestSteps);
    },
  );
});

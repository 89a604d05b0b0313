import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Cells } from "../../src/core/cells.js";
import { NoNetworks } from "../../src/core/egress/no-networks.js";
import { networkSettings } from "../../src/core/egress/settings.js";
import { noInjection } from "../../src/core/secrets/injection.js";
import { Layers } from "../../src/core/layers.js";
import type { SandboxPlan } from "../../src/core/sandbox-plan.js";
import {
  aheadStages,
  rebuildStages,
  sandboxStages,
  type SandboxDraft,
  type StageParts,
} from "../../src/core/sandbox-stages.js";
import { bringUp, takeDown, type Stage } from "../../src/core/stages.js";
import { trustByHand } from "../../../test/support/modules.js";
import { DirectoryCatalog } from "../../src/modules/catalog.js";
import { Ext4Template } from "../../src/store/ext4-template.js";
import type { Pool } from "../../src/kernel/pool.js";
import { makePoolImage, poolImage } from "../../src/store/pool-image.js";
import { SandboxFiles } from "../../src/store/sandbox-files.js";
import { lacks } from "../../../test/support/needs.js";
import { usableFormat, useKernel } from "./test-kernel.js";

const backends = lacks("btrfs") ? (["tmpfs", "loop"] as const) : (["tmpfs", "loop", "btrfs"] as const);
const moments = ["before", "after"] as const;
const body = ["cell", "upper", "limits"] as const;
const createNames = ["directories", "layers", "snapshots", ...body, "root", "network", "record"] as const;
const aheadNames = ["directories", "layers", ...body, "network", "snapshots", "root", "record"] as const;
const rebuildNames = [
  "layers",
  "snapshots",
  "cell",
  "upper",
  "origins",
  "limits",
  "root",
  "network",
  "record",
] as const;

type Moment = (typeof moments)[number];

/** The table with one stage that fails, before or after it has done its work. */
function failingAt(stages: readonly Stage<SandboxDraft>[], name: string, moment: Moment): Stage<SandboxDraft>[] {
  return stages.map((stage) => ({
    name: stage.name,
    down: (draft) => stage.down(draft),
    async up(draft) {
      if (stage.name !== name) return stage.up(draft);
      if (moment === "after") await stage.up(draft);
      throw new Error("as planned");
    },
  }));
}

describe.skipIf(lacks("root"))("a sandbox's stages", () => {
  const machine = useKernel();
  const id = `${machine.mark}-box`;
  let parts: StageParts;
  let create: Stage<SandboxDraft>[];
  let ahead: Stage<SandboxDraft>[];
  let rebuild: Stage<SandboxDraft>[];
  let layers: Layers;

  beforeAll(async () => {
    const { kernel, dataDir } = machine;
    const [base, extra] = (["000-base-test", "100-extra"] as const).map((name) => machine.image(name, usableFormat));
    const names = [base, extra].map((image = "") => image.replace(/^modules\//, "").replace(/\.[a-z]+$/, ""));
    for (const name of names) trustByHand(join(dataDir, "modules"), name);
    let pool: Pool | null = null;
    if (backends.length > 2) {
      await makePoolImage(dataDir, 256);
      pool = kernel.pool;
      await pool.mount(poolImage);
    }
    const template = new Ext4Template(join(dataDir, "cache/template"));
    layers = new Layers(kernel, { lingerMs: 0 });
    parts = {
      kernel,
      store: new SandboxFiles(dataDir, {
        makeImage: (path, size) => template.make(path, size),
        boot: kernel.bootId,
        pool,
      }),
      catalog: new DirectoryCatalog(dataDir, { defaultLayers: names }),
      layers,
      cells: new Cells(kernel, { poolSize: 0, emit: () => undefined }),
      networks: new NoNetworks(),
      injection: noInjection,
    };
    await parts.store.list(); // makes the directory of all sandboxes, as at a start
    create = sandboxStages(parts);
    ahead = aheadStages(parts);
    rebuild = rebuildStages(parts);
  });
  afterAll(async () => {
    expect(layers.mounted).toBe(0);
    await machine.kernel.pool.unmount();
  });

  function planFor(backend: (typeof backends)[number]): SandboxPlan {
    const now = new Date(0).toISOString();
    return {
      version: 1,
      id,
      owner: "",
      task: "",
      requestedLayers: [],
      created: now,
      lastActive: now,
      cpu: 1,
      memoryMb: 128,
      pids: 50,
      maxLifetimeS: 0,
      network: networkSettings({}),
      nestedUserns: false,
      upper: { backend, limitBytes: 16 * 1_048_576, generation: 0 },
      snapshots: [],
      restored: null,
      head: null,
      forkedFrom: null,
      restarts: 0,
    };
  }

  it("have these names", () => {
    expect(create.map(({ name }) => name)).toEqual(createNames);
    expect(ahead.map(({ name }) => name)).toEqual(aheadNames);
    expect(rebuild.map(({ name }) => name)).toEqual(rebuildNames);
  });

  const matrix = (names: readonly string[]) =>
    backends.flatMap((backend) => moments.flatMap((moment) => names.map((name) => ({ backend, moment, name }))));

  const orders = [
    ...matrix(createNames).map((one) => ({ ...one, order: "usual" })),
    ...matrix(aheadNames).map((one) => ({ ...one, order: "fork's" })),
  ];

  it.each(orders)(
    "leave nothing with an upper of $backend when $name fails $moment its work, in the $order order",
    async ({ backend, moment, name, order }) => {
      const before = await machine.state();
      const stages = order === "usual" ? create : ahead;
      const failing = bringUp(failingAt(stages, name, moment), { id, plan: planFor(backend) });
      const error: unknown = await failing.catch((cause: unknown) => cause);
      expect(error).toMatchObject({ code: "create_failed", details: { stage: name }, message: /as planned/ });
      expect(error).not.toHaveProperty("details.leftovers");
      expect(await machine.settled(before)).toEqual(before);
      expect(layers.mounted).toBe(0);

      const draft: SandboxDraft = { id, plan: planFor(backend) };
      await bringUp(stages, draft);
      expect(await machine.print(draft.index ?? -1, "hostname; cat /opt/extra/file")).toBe(
        `${id}\nfrom the extra layer\n`,
      );
      expect(await takeDown(create, draft)).toEqual([]);
    },
  );

  it.each(matrix(rebuildNames))(
    "keep the files of an upper of $backend when $name fails $moment its work in a rebuild",
    async ({ backend, moment, name }) => {
      const first: SandboxDraft = { id, plan: planFor(backend) };
      await bringUp(create, first);
      const index = first.index ?? -1;
      await machine.print(index, "echo kept >/root/file");
      const { record } = first;
      expect(record).toBeDefined();
      // as after a restart of the machine, which a tmpfs would not have survived
      const dead: SandboxDraft = { id, index, layerKeys: first.layerKeys ?? [] };
      expect(await takeDown(rebuild, dead)).toEqual([]);
      if (backend !== "tmpfs") await parts.kernel.unmountUpper(parts.store.upperPath(id, 0));
      const before = await machine.state();
      expect(await parts.kernel.cellsInCgroups()).toEqual([]);

      if (record === undefined) throw new Error("it has no record");
      const changed = { ...record, layerKeys: ["000-other@0.erofs"] };
      const failed: SandboxDraft = { id, index, plan: planFor(backend), before: changed };
      const failing = bringUp(failingAt(rebuild, name, moment), failed);
      const error: unknown = await failing.catch((cause: unknown) => cause);
      expect(error).toMatchObject({ code: "create_failed", details: { stage: name } });
      expect(error).not.toHaveProperty("details.leftovers");
      // the upper stays where it was mounted again: the sandbox is not gone
      const upper = parts.store.upperPath(id, 0);
      if (await parts.store.isUpperMounted(id, 0))
        expect(readFileSync(join(upper, "data/root/file"), "utf8")).toBe("kept\n");
      if (backend !== "tmpfs") await parts.kernel.unmountUpper(upper);
      expect(await machine.settled(before)).toEqual(before);

      const draft: SandboxDraft = { id, index, plan: planFor(backend) };
      await bringUp(rebuild, draft);
      expect(draft.index).toBe(index);
      expect(await machine.print(index, "cat /root/file")).toBe("kept\n");
      expect(await takeDown(create, draft)).toEqual([]);
    },
  );

  it("are taken down after sq-host was killed in between", async () => {
    const draft: SandboxDraft = { id, plan: planFor("loop") };
    await bringUp(create, draft);
    process.kill(await machine.hostPid(), "SIGKILL");
    await expect.poll(() => machine.restarts.length).toBe(1);
    expect(await takeDown(create, draft)).toEqual([]);
  });

  it("are taken down by their id alone, and twice", async () => {
    const draft: SandboxDraft = { id, plan: planFor("tmpfs") };
    await bringUp(create, draft);
    const index = draft.index ?? -1;
    expect(await takeDown(create, { id, index, layerKeys: draft.layerKeys ?? [] })).toEqual([]);
    expect(await takeDown(create, { id, index })).toEqual([]);
    expect(await takeDown(create, { id })).toEqual([]);
  });
});

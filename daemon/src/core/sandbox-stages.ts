import type { Cell, Cells } from "./cells.js";
import type { Layers } from "./layers.js";
import type { Emit } from "./events.js";
import type { Networks } from "./egress/networks.js";
import { mergeDefaults, type ImageDefaults } from "./image-defaults.js";
import { secretAccess } from "./secrets/grants.js";
import { checkStack } from "./module-stack.js";
import type { Kernel, ModuleCatalog, RootPlan, SandboxRecord, SandboxStore } from "./ports.js";
import type { Custody } from "./remote/custody.js";
import type { Injection } from "./secrets/injection.js";
import type { RootTrust } from "./secrets/root-trust.js";
import type { SandboxPlan } from "./sandbox-plan.js";
import { mountSnapshots } from "./snapshot-layers.js";
import type { Stage } from "./stages.js";
import { stackOrder } from "./stack.js";
import { untilFree } from "./until-free.js";

/** A sandbox on its way up or down. What a stage has made is filled in by it; what is missing was not made, or is found by the id. */
export interface SandboxDraft {
  readonly id: string;
  /** how it was asked for; absent for a leftover that is only taken down */
  readonly plan?: SandboxPlan;
  /** resolves once the images of its snapshots are there; absent where they are */
  readonly files?: Promise<unknown>;
  /** number of its cell; known before there is one when it is rebuilt */
  index?: number;
  cell?: Cell;
  /** whether its cell is known to be gone */
  cellGone?: boolean;
  layerKeys?: readonly string[];
  layers?: readonly string[];
  trust?: RootTrust | undefined;
  defaults?: ImageDefaults | undefined;
  record?: SandboxRecord;
  /** what the record was before a change, or a rebuild; absent where nothing is changed */
  before?: SandboxRecord;
  /** which of its uppers is meant; absent for all that a leftover has */
  generation?: number;
}

export interface StageParts {
  readonly kernel: Kernel;
  readonly store: SandboxStore;
  readonly catalog: ModuleCatalog;
  readonly layers: Layers;
  readonly cells: Cells;
  readonly networks: Networks;
  readonly injection: Injection;
  /** absent where sandboxes are of this machine alone */
  readonly custody?: Custody;
}

/**
 * The table that creates, rolls back, destroys, sweeps and is tested stage by stage. The record is the commit point: written last and
 * removed first, so that whatever a crash leaves without one is a leftover.
 */
export function sandboxStages(parts: StageParts): Stage<SandboxDraft>[] {
  return [
    ...home(parts),
    snapshots(parts),
    ...body(parts),
    root(parts, { fresh: true, named: true }),
    network(parts),
    record(parts, { keep: false }),
  ];
}

/**
 * The same in the order for one whose files are still being captured: all comes first that there can be without them. Snapshots that cannot
 * be mounted cost a cell then. Only creates, and rolls back.
 */
export function aheadStages(parts: StageParts): Stage<SandboxDraft>[] {
  return [
    ...home(parts),
    ...body(parts),
    network(parts),
    snapshots(parts),
    root(parts, { fresh: true, named: true }),
    record(parts, { keep: false }),
  ];
}

function home(parts: StageParts): Stage<SandboxDraft>[] {
  return [directories(parts), layers(parts, { fresh: true })];
}

function body(parts: StageParts): Stage<SandboxDraft>[] {
  return [cell(parts, { keepNumber: false }), upper(parts), limits(parts)];
}

/**
 * The same for a sandbox whose processes have died, on its surviving upper. Taking these down keeps the upper and the record. With `emit` a
 * record that finds no room is told and done without: the one on the disk has all but the new cell, so that the next squashd rebuilds it again.
 */
export function rebuildStages(parts: StageParts, emit?: Emit): Stage<SandboxDraft>[] {
  return [
    layers(parts, { fresh: false }),
    snapshots(parts),
    cell(parts, { keepNumber: true }),
    survivingUpper(parts),
    origins(parts),
    limits(parts),
    root(parts, { fresh: false, named: false }),
    network(parts),
    record(parts, { keep: true, emit }),
  ];
}

/**
 * What a change of a living sandbox's stack needs, and what goes with the old one. Layers come first: they prove that all images can be
 * mounted before anything of the old stack is touched.
 */
export function stackStages(parts: StageParts, options: { readonly keepUpper: boolean }): Stage<SandboxDraft>[] {
  const stack = [layers(parts, { fresh: options.keepUpper }), snapshots(parts)];
  return options.keepUpper ? stack : [...stack, nextUpper(parts)];
}

/** What comes first where the cell stays: nothing has been touched yet where this fails. */
export function doubtStages(parts: StageParts): Stage<SandboxDraft>[] {
  return [doubt(parts)];
}

/** The same as `swapStages` where nothing runs in the cell, which therefore stays and gets another root. Taking these down kills it. */
export function rerootStages(parts: StageParts, options: { readonly keepUpper: boolean }): Stage<SandboxDraft>[] {
  const again = { fresh: !options.keepUpper, named: false, again: true };
  return [origins(parts), root(parts, again), trust(parts), record(parts, { keep: true })];
}

/**
 * What is replaced at once in such a change: everything that holds the old root. The record is the commit point; with `emit`, for the way back
 * to the stack that is on the disk already, one that finds no room is told and done without.
 */
export function swapStages(
  parts: StageParts,
  options: { readonly keepUpper: boolean; readonly emit?: Emit },
): Stage<SandboxDraft>[] {
  return [
    cell(parts, { keepNumber: true }),
    origins(parts),
    limits(parts),
    root(parts, { fresh: !options.keepUpper, named: false }),
    network(parts),
    record(parts, { keep: true, emit: options.emit }),
  ];
}

function planOf(draft: SandboxDraft): SandboxPlan {
  if (draft.plan === undefined) throw new Error(`sandbox "${draft.id}" has no plan`);
  return draft.plan;
}

function cellOf(draft: SandboxDraft): Cell {
  if (draft.cell === undefined) throw new Error(`sandbox "${draft.id}" has no cell`);
  return draft.cell;
}

function directories({ store }: StageParts): Stage<SandboxDraft> {
  return {
    name: "directories",
    async up(draft) {
      await store.makeDirectories(draft.id);
    },
    async down(draft) {
      await store.removeDirectories(draft.id);
    },
  };
}

function layers(
  { catalog, layers: mounted, injection }: StageParts,
  options: { readonly fresh: boolean },
): Stage<SandboxDraft> {
  return {
    name: "layers",
    async up(draft) {
      const { requestedLayers: requested, secrets = null } = planOf(draft);
      const names = stackOrder(requested.length > 0 ? requested : await catalog.defaultLayers());
      draft.layers = names; // before they are looked for, so that none is removed meanwhile
      const modules = await Promise.all(names.map((name) => catalog.resolve(name)));
      draft.defaults = mergeDefaults(modules);
      // a stack that there was already was made of modules that went together
      if (options.fresh) checkStack(modules);
      const keys = await mounted.acquire(modules);
      draft.layerKeys = keys; // so that a failure gives them back
      const trust = await injection.acquire({ secrets, modules: keys, defaults: draft.defaults });
      draft.trust = trust?.root;
      if (trust !== null) draft.layerKeys = [trust.key, ...keys];
    },
    async down(draft) {
      const keys = draft.layerKeys ?? [];
      delete draft.layerKeys;
      await mounted.release(keys);
    },
  };
}

/** Files that the sandbox begins with, above all others, so that what it wrote itself counts. */
function snapshots(parts: StageParts): Stage<SandboxDraft> {
  return {
    name: "snapshots",
    async up(draft) {
      await draft.files;
      const above = await mountSnapshots(parts, planOf(draft).snapshots, { fresh: draft.files === undefined ? 0 : 1 });
      draft.layerKeys = [...above, ...(draft.layerKeys ?? [])];
    },
    async down() {
      // They go with the layers.
    },
  };
}

function cell({ cells }: StageParts, options: { readonly keepNumber: boolean }): Stage<SandboxDraft> {
  return {
    name: "cell",
    async up(draft) {
      const kind = { nestedUserns: planOf(draft).nestedUserns };
      draft.cell = draft.index === undefined ? await cells.take(kind) : await cells.remake(draft.index, kind);
      draft.index = draft.cell.index;
      draft.cellGone = false;
    },
    async down(draft) {
      if (draft.index === undefined) return;
      if (draft.cellGone !== true) await cells.kill(draft.index);
      draft.cellGone = true;
      // A rebuild that failed may be tried again, with the number whose user ids own the upper.
      if (!options.keepNumber) cells.release(draft.index);
    },
  };
}

function upper(parts: StageParts): Stage<SandboxDraft> {
  const { kernel, store } = parts;
  return {
    name: "upper",
    async up(draft) {
      await mountNewUpper(parts, draft, cellOf(draft).index);
    },
    async down(draft) {
      const generations = draft.generation === undefined ? await store.upperGenerations(draft.id) : [draft.generation];
      for (const generation of generations) await kernel.unmountUpper(store.upperPath(draft.id, generation));
    },
  };
}

/** A second upper beside the one in use. */
function nextUpper(parts: StageParts): Stage<SandboxDraft> {
  const { kernel, store } = parts;
  return {
    name: "upper",
    async up(draft) {
      if (draft.index === undefined) throw new Error(`sandbox "${draft.id}" has no number`);
      await store.makeUpper(draft.id, planOf(draft).upper.generation);
      await mountNewUpper(parts, draft, draft.index);
    },
    async down(draft) {
      const { generation } = planOf(draft).upper;
      await kernel.unmountUpper(store.upperPath(draft.id, generation));
      await store.removeUpper(draft.id, generation);
    },
  };
}

async function mountNewUpper({ kernel, store }: StageParts, draft: SandboxDraft, index: number): Promise<void> {
  const { backend, limitBytes, generation } = planOf(draft).upper;
  draft.generation = generation;
  const image = upperImage(store, planOf(draft));
  if (backend === "loop") await store.makeImage(draft.id, generation, limitBytes);
  await kernel.mountUpper({ path: store.upperPath(draft.id, generation), image, sizeBytes: limitBytes, index });
}

/** What outlives a restart of the machine; null for nothing. */
function upperImage(store: SandboxStore, { id, upper }: Pick<SandboxPlan, "id" | "upper">): string | null {
  const { backend, generation } = upper;
  if (backend === "tmpfs") return null;
  return backend === "loop" ? store.imagePath(id, generation) : store.subvolumePath(id, generation);
}

function survivingUpper({ kernel, store }: StageParts): Stage<SandboxDraft> {
  return {
    name: "upper",
    async up(draft) {
      const { generation } = planOf(draft).upper;
      const image = upperImage(store, planOf(draft));
      if (image === null || (await store.isUpperMounted(draft.id, generation))) return;
      const path = store.upperPath(draft.id, generation);
      await kernel.mountUpper({ path, image, sizeBytes: 0, index: cellOf(draft).index });
    },
    async down() {
      // It holds the sandbox's files, which outlive a failed rebuild.
    },
  };
}

function limits({ kernel, custody }: StageParts): Stage<SandboxDraft> {
  return {
    name: "limits",
    async up(draft) {
      const { id, owner, memoryMb, cpu, pids } = planOf(draft);
      // before anything runs in it
      await custody?.guard({ id, owner }, cellOf(draft).index);
      const cpuQuotaUs = Math.max(1000, Math.round(cpu * 100_000));
      await kernel.limitCell(cellOf(draft).index, { memoryBytes: memoryMb * 1_048_576, cpuQuotaUs, pids });
    },
    async down() {
      // They go with the cell.
    },
  };
}

/** Where a layer goes, its files may show again that the whiteouts of moved ones hid, and be taken for those. */
function origins({ kernel, store }: StageParts): Stage<SandboxDraft> {
  return {
    name: "origins",
    async up({ id, before, layerKeys = [], plan }) {
      if (before === undefined || before.upper.generation !== plan?.upper.generation) return;
      // that of a rebuild which failed has none: it is not known what they were
      const isSame = before.layerKeys.length > 0 && before.layerKeys.every((key) => layerKeys.includes(key));
      if (isSame) return;
      await untilFree(() => kernel.forgetOrigins(store.upperPath(id, before.upper.generation)));
    },
    async down() {
      // What is forgotten nobody misses.
    },
  };
}

/** Has the cell of the record not be taken over by another squashd, should this one die while it is not known which root it has. */
function doubt({ store }: StageParts): Stage<SandboxDraft> {
  return {
    name: "doubt",
    async up({ id, before }) {
      if (before === undefined) throw new Error(`sandbox "${id}" had no record`);
      await store.writeRecord({ ...before, cell: { ...before.cell, bootId: "" } });
    },
    async down() {
      // A record too much in doubt does no harm: the cell would be rebuilt.
    },
  };
}

function root(
  { kernel, store, cells }: StageParts,
  options: Pick<RootPlan, "fresh" | "named" | "again">,
): Stage<SandboxDraft> {
  return {
    name: "root",
    async up(draft) {
      await kernel.giveRoot(cellOf(draft).index, {
        ...options,
        hostname: draft.id,
        upper: store.upperPath(draft.id, planOf(draft).upper.generation),
        layers: draft.layerKeys ?? [],
      });
    },
    async down(draft) {
      // A cell that was given files is of no other use. It goes before its upper does, so that nothing runs on what is being removed.
      if (draft.index === undefined || draft.cellGone === true) return;
      await cells.kill(draft.index);
      draft.cellGone = true;
    },
  };
}

function network({ kernel, networks }: StageParts): Stage<SandboxDraft> {
  return {
    name: "network",
    async up(draft) {
      const { index } = cellOf(draft);
      const { network, secrets = null } = planOf(draft);
      // sq-host works in order: one trip for all
      await Promise.all([
        kernel.withdrawNetns(kernel.netnsName(draft.id)),
        kernel.publishNetns(index, kernel.netnsName(draft.id)),
        networks.attach(index, draft.id, network, secretAccess({ secrets, trust: draft.trust })),
      ]);
    },
    async down(draft) {
      // the link is closed before anything that it leads to goes
      if (draft.index !== undefined) await networks.detach(draft.index);
      await kernel.withdrawNetns(kernel.netnsName(draft.id));
    },
  };
}

/** Has the proxy use the certificate authority of the new root, where the network stays as it is. */
function trust({ networks }: StageParts): Stage<SandboxDraft> {
  return {
    name: "trust",
    async up({ plan, before, trust: given, ...draft }) {
      if (before?.trust?.ca === given?.ca) return;
      await networks.grant(cellOf(draft).index, secretAccess({ secrets: plan?.secrets ?? null, trust: given }));
    },
    async down() {
      // the network goes with the cell
    },
  };
}

function record(
  { kernel, store }: StageParts,
  { keep, emit }: { readonly keep: boolean; readonly emit?: Emit | undefined },
): Stage<SandboxDraft> {
  return {
    name: "record",
    async up(draft) {
      const { requestedLayers: _, ...plan } = planOf(draft);
      const { index, process } = cellOf(draft);
      draft.record = {
        ...plan,
        layers: draft.layers ?? [],
        layerKeys: draft.layerKeys ?? [],
        cell: { index, pid: process.pid, startTime: String(process.startTime), bootId: kernel.bootId },
        ...(draft.trust === undefined ? {} : { trust: draft.trust }),
        ...(draft.defaults === undefined ? {} : { defaults: draft.defaults }),
      };
      await store.writeRecord(draft.record).catch((error: Error) => {
        if (emit === undefined) throw error;
        emit({ type: "unwritten", sandbox: draft.id, what: "record", error: error.message });
      });
    },
    async down(draft) {
      if (!keep) await store.removeRecord(draft.id);
    },
  };
}

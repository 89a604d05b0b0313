import { isSquashError } from "@squash/sdk/errors";
import { errorText } from "./error-text.js";
import type { Emit } from "./events.js";
import type { SandboxRecord, StoredSandbox } from "./ports.js";
import { newSandbox, type Sandbox } from "./sandbox.js";
import { planOfRecord } from "./sandbox-plan.js";
import { rebuildStages, sandboxStages, type SandboxDraft, type StageParts } from "./sandbox-stages.js";
import type { Sandboxes } from "./sandboxes.js";
import { secretAccess } from "./secrets/grants.js";
import { withKnownLabels } from "./snapshot-chain.js";
import type { SnapshotImages } from "./snapshot-images.js";
import { bringUp, takeDown, type Stage } from "./stages.js";

const deathWindowMs = 60_000;
const maxDeaths = 3;

/** Brings the registry in line with what is on disk and in the kernel: after a start of squashd, and when a sandbox's init dies. */
export class Recovery {
  readonly #parts: StageParts;
  readonly #sandboxes: Sandboxes;
  readonly #images: SnapshotImages;
  readonly #emit: Emit;
  readonly #rebuild: readonly Stage<SandboxDraft>[];

  constructor(
    parts: StageParts,
    sandboxes: Sandboxes,
    options: { readonly images: SnapshotImages; readonly emit: Emit },
  ) {
    this.#parts = parts;
    this.#sandboxes = sandboxes;
    this.#images = options.images;
    this.#emit = options.emit;
    this.#rebuild = rebuildStages(parts, options.emit);
  }

  /** Adopts what lives, rebuilds what can be, lists the rest as lost, and sweeps what belongs to nobody. */
  async run(): Promise<void> {
    const stored = await this.#parts.store.list();
    const dead: Sandbox[] = [];
    for (const found of stored) if (found.record !== null) this.#parts.cells.reserve(found.record.cell.index);
    const taken = await this.#takenOver(stored);
    for (const found of stored) {
      if (found.record === null) {
        if (found.damage !== null) this.#damaged(found.id, found.damage);
        continue;
      }
      if (taken.has(found.id)) {
        await takeDown(sandboxStages(this.#parts), { id: found.id, index: found.record.cell.index });
        this.#emit({ type: "swept", what: "sandbox", name: found.id });
        continue;
      }
      const record = withKnownLabels(found.record, found.snapshots);
      const sandbox = this.#restore(found, record);
      const adopted = await this.#sandboxes.exclusively(sandbox.id, () => this.#adopt(sandbox, record));
      if (!adopted) dead.push(sandbox);
    }
    await this.#sweep(stored);
    for (const sandbox of this.#sandboxes.all()) await this.#sweepUppers(sandbox);
    for (const key of await this.#parts.layers.sweep()) this.#emit({ type: "swept", what: "layer", name: key });
    for (const sandbox of dead) await this.#sandboxes.exclusively(sandbox.id, () => this.#revive(sandbox, []));
    for (const image of (await this.#images.collect()).images)
      this.#emit({ type: "swept", what: "snapshot", name: image });
  }

  /** An init has died without being asked to. What is being done with its sandbox (a creation, an adoption) comes to its end first. */
  async cellDied(index: number, pid: number): Promise<void> {
    if (await this.#parts.cells.discard(index)) return;
    const sandbox = this.#sandboxes.all().find((one) => (one.draft?.cell ?? one.record?.cell)?.index === index);
    if (sandbox === undefined) return;
    await this.#sandboxes.exclusively(sandbox.id, async () => {
      // Another init may have taken its place by now.
      if (sandbox.state !== "ready" || sandbox.record?.cell.index !== index || sandbox.record.cell.pid !== pid) return;
      sandbox.reason = await this.#reasonOfDeath(sandbox, index);
      this.#emit({ type: "sandbox.died", sandbox: sandbox.id, reason: sandbox.reason });
      await this.#revive(sandbox, sandbox.record.layerKeys);
    });
  }

  /** Sandboxes that another machine has now: what is here of them is of the past. */
  async #takenOver(stored: readonly StoredSandbox[]): Promise<ReadonlySet<string>> {
    const { custody } = this.#parts;
    const taken = new Set<string>();
    if (custody === undefined) return taken;
    const ask = async ({ id, record }: StoredSandbox): Promise<void> => {
      if (record !== null && (await custody.recover(record)) === "taken") taken.add(id);
    };
    await Promise.all(stored.map(ask));
    return taken;
  }

  #damaged(sandbox: string, error: string): void {
    this.#images.doubt();
    this.#emit({ type: "record.damaged", sandbox, error });
  }

  #restore(found: StoredSandbox, record: SandboxRecord): Sandbox {
    const sandbox = newSandbox(found.id, "recovering");
    sandbox.record = record;
    sandbox.lastSeq = found.lastSeq;
    sandbox.snapshots = found.snapshots;
    sandbox.lastActiveMs = Date.parse(record.lastActive) || Date.now();
    this.#sandboxes.add(sandbox);
    return sandbox;
  }

  async #adopt(sandbox: Sandbox, record: SandboxRecord): Promise<boolean> {
    const { index, pid, startTime, bootId } = record.cell;
    if (bootId !== this.#parts.kernel.bootId) return false;
    if (!(await this.#parts.kernel.adoptCell(index, { pid, startTime: BigInt(startTime) }))) return false;
    if (!(await this.#thaw(index))) return false;
    if (!(await this.#guard(record)) || !(await this.#attach(sandbox, record))) return false;
    this.#parts.layers.adopt(record.layerKeys);
    sandbox.state = "ready";
    this.#emit({ type: "sandbox.recovered", sandbox: sandbox.id, how: "adopted" });
    return true;
  }

  /** A snapshot may have been cut off. One whose deadline passed meanwhile is killed in place of being thawed, and rebuilt where it may run. */
  async #thaw(index: number): Promise<boolean> {
    try {
      await this.#parts.kernel.freezeCell(index, false);
      return true;
    } catch (error) {
      if (isSquashError(error) && error.details["errno"] === "ETIME") return false;
      throw error;
    }
  }

  /** Without it the sandbox is rebuilt, which fails for the same reason where this machine may not run it. */
  async #guard(record: SandboxRecord): Promise<boolean> {
    const { custody } = this.#parts;
    if (custody === undefined) return true;
    return custody.guard(record, record.cell.index).then(
      () => true,
      () => false,
    );
  }

  /** Its link is closed until then, so one that cannot be opened again leaves a sandbox that is rebuilt, or fails with the reason. */
  async #attach(sandbox: Sandbox, record: SandboxRecord): Promise<boolean> {
    try {
      const { cell, id, network } = record;
      await this.#parts.networks.attach(cell.index, id, network, secretAccess(record));
      return true;
    } catch (error) {
      sandbox.reason = errorText(error);
      return false;
    }
  }

  /** Removes cells that no sandbox has, then half-made sandboxes, whose files those may have used. */
  async #sweep(stored: readonly StoredSandbox[]): Promise<void> {
    const owned = new Set(
      this.#sandboxes.all().map((sandbox) => (sandbox.state === "ready" ? sandbox.record?.cell.index : undefined)),
    );
    for (const index of await this.#parts.kernel.cellsInCgroups()) {
      if (owned.has(index)) continue;
      await this.#parts.kernel.killCell(index);
      this.#emit({ type: "swept", what: "cell", name: String(index) });
    }
    const stages = sandboxStages(this.#parts);
    for (const { id, record, damage } of stored) {
      if (record !== null || damage !== null) continue;
      await takeDown(stages, { id });
      this.#emit({ type: "swept", what: "sandbox", name: id });
    }
  }

  /** Removes uppers that a change of the stack had made, or had not come to remove. */
  async #sweepUppers({ id, record }: Sandbox): Promise<void> {
    const { kernel, store } = this.#parts;
    for (const generation of await store.upperGenerations(id)) {
      if (record === null || generation === record.upper.generation) continue;
      await kernel.unmountUpper(store.upperPath(id, generation));
      await store.removeUpper(id, generation);
      this.#emit({ type: "swept", what: "upper", name: `${id} ${generation}` });
    }
  }

  /** Rebuilds a dead sandbox on its upper; `heldLayers` are those that its dead cell is counted as a user of. Must run exclusively. */
  async #revive(sandbox: Sandbox, heldLayers: readonly string[]): Promise<void> {
    const { record } = sandbox;
    if (record === null) return;
    sandbox.state = "recovering";
    for (const running of sandbox.running) running.abort();
    const { cell } = record;
    const plan = { ...planOfRecord(record), restarts: record.restarts + 1 };
    await takeDown(this.#rebuild, { id: sandbox.id, index: cell.index, layerKeys: heldLayers });
    sandbox.record = { ...record, layerKeys: [] };
    if (!(await this.#hasUpper(record))) {
      this.#give(sandbox, "lost", "its files were in memory and did not survive the restart of the machine");
      return;
    }
    if (this.#diesTooOften(sandbox)) {
      this.#give(
        sandbox,
        "failed",
        `its init died ${maxDeaths} times within a minute (${sandbox.reason ?? "unknown"})`,
      );
      return;
    }
    const draft: SandboxDraft = { id: sandbox.id, plan, index: cell.index, before: record };
    try {
      await bringUp(this.#rebuild, draft);
    } catch (error) {
      this.#give(sandbox, "failed", errorText(error));
      return;
    }
    sandbox.record = draft.record ?? record;
    sandbox.state = "ready";
    this.#emit({ type: "sandbox.recovered", sandbox: sandbox.id, how: "rebuilt" });
  }

  async #hasUpper(record: SandboxRecord): Promise<boolean> {
    const { backend, generation } = record.upper;
    if (await this.#parts.store.isUpperMounted(record.id, generation)) return true;
    return backend !== "tmpfs" && (await this.#parts.store.hasImage(record.id, generation));
  }

  #give(sandbox: Sandbox, state: "lost" | "failed", reason: string): void {
    sandbox.state = state;
    sandbox.reason = reason;
    this.#emit({ type: "sandbox.recovered", sandbox: sandbox.id, how: state });
  }

  #diesTooOften(sandbox: Sandbox): boolean {
    const now = Date.now();
    while ((sandbox.deaths[0] ?? now) < now - deathWindowMs) sandbox.deaths.shift();
    return sandbox.deaths.length >= maxDeaths;
  }

  async #reasonOfDeath(sandbox: Sandbox, index: number): Promise<string> {
    sandbox.deaths.push(Date.now());
    const { oomKills } = await this.#parts.kernel.usage(index);
    sandbox.earlierOomKills += oomKills;
    return oomKills > 0
      ? "its init died, after the kernel had killed processes for lack of memory"
      : "its init was killed";
  }
}

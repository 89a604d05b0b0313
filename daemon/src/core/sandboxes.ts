import { SquashError, isSquashError } from "@squash/sdk/errors";
import type {
  CreateSandbox,
  ExecRequest,
  ExecResult,
  GrantRequest,
  NetworkInfo,
  NetworkRequest,
  SandboxInfo,
  SandboxState,
} from "@squash/sdk/protocol";
import type { Emit, OperationEvent } from "./events.js";
import { execResult, toCommand } from "./exec.js";
import { execDefaults } from "./image-defaults.js";
import { KeyedMutex } from "./keyed-mutex.js";
import { LiveNetworks } from "./live-networks.js";
import type { CellUsage, RetentionLimits, SandboxRecord, SnapshotRecord } from "./ports.js";
import { retentionOf } from "./retention.js";
import { secretAccess } from "./secrets/grants.js";
import type { Making } from "./remote/custody.js";
import { newSandbox, sandboxInfo, type Sandbox } from "./sandbox.js";
import { newPlan, type SandboxPlan, type UpperOptions } from "./sandbox-plan.js";
import { aheadStages, sandboxStages, type SandboxDraft, type StageParts } from "./sandbox-stages.js";
import type { NetworkFigures, SandboxService } from "./service.js";
import { bringUp, takeDown, type Stage, type Timings } from "./stages.js";

export interface SandboxesOptions extends UpperOptions {
  readonly maxSandboxes: number;
  /** of sandboxes that say nothing */
  readonly retention: RetentionLimits;
  readonly emit: Emit;
  /** told of images of snapshots that a sandbox, which is gone, does not need any more */
  readonly forgotten?: (images: readonly string[]) => Promise<void>;
}

const noUsage: CellUsage = { memoryBytes: 0, oomKills: 0 };

/** The registry: which sandboxes there are, and what can be done with them. Operations on one sandbox wait for each other, commands do not. */
export class Sandboxes implements SandboxService {
  readonly #parts: StageParts;
  readonly #options: SandboxesOptions;
  readonly #stages: readonly Stage<SandboxDraft>[];
  /** the same, in an order that lets most of them go ahead of the files that are to be in the stack */
  readonly #stagesAhead: readonly Stage<SandboxDraft>[];
  readonly #live: LiveNetworks;
  readonly #byId = new Map<string, Sandbox>();
  readonly #mutex = new KeyedMutex();
  #closed = false;

  constructor(parts: StageParts, options: SandboxesOptions) {
    this.#parts = parts;
    this.#options = options;
    this.#stages = sandboxStages(parts);
    this.#stagesAhead = aheadStages(parts);
    this.#live = new LiveNetworks(parts, this);
  }

  get count(): number {
    return this.#byId.size;
  }

  /** All sandboxes in memory, for recovery and the reaper. */
  all(): readonly Sandbox[] {
    return [...this.#byId.values()];
  }

  /** Takes in a sandbox that was found on disk. */
  add(sandbox: Sandbox): void {
    this.#byId.set(sandbox.id, sandbox);
  }

  /** Runs `work` while no other operation on that sandbox does. */
  exclusively<T>(id: string, work: () => Promise<T>): Promise<T> {
    return this.#mutex.run(id, work);
  }

  byState(): Record<SandboxState, number> {
    const counts = { creating: 0, ready: 0, recovering: 0, lost: 0, failed: 0, destroying: 0 };
    for (const sandbox of this.#byId.values()) counts[sandbox.state]++;
    return counts;
  }

  async create(request: CreateSandbox, signal: AbortSignal): Promise<SandboxInfo> {
    this.checkSecrets(request.secrets ?? null);
    const replan = (saved: Partial<CreateSandbox>): SandboxPlan => newPlan({ ...saved, ...request }, this.#options);
    return this.createPlanned(newPlan(request, this.#options), signal, { replan });
  }

  /**
   * Creates a sandbox; with snapshots in its stack it begins with their files. `files` resolves once their images are there, where they are not
   * yet; what does not need them is made meanwhile. `replan` as in `Making`.
   */
  async createPlanned(
    plan: SandboxPlan,
    signal: AbortSignal,
    { files, replan }: Pick<SandboxDraft, "files"> & Pick<Making, "replan"> = {},
  ): Promise<SandboxInfo> {
    const { custody } = this.#parts;
    const start = performance.now();
    const timings: Timings = {};
    const { id } = plan;
    let draft: SandboxDraft = { id, plan };
    this.#parts.networks.check(plan.network);
    const sandbox = this.#reserve(id);
    const make: Making["make"] = async (final, history) => {
      // what is kept elsewhere of a sandbox of that name may go before the files that are coming
      const coming = final.snapshots[0] === plan.snapshots[0] ? files : undefined;
      draft = { id, plan: final, ...(coming && { files: coming }) };
      sandbox.draft = draft;
      await bringUp(coming === undefined ? this.#stages : this.#stagesAhead, draft, { signal, timings });
      if (history.length > 0) await this.#parts.store.writeSnapshots(id, history);
      sandbox.snapshots = history;
      sandbox.record = draft.record ?? null;
      sandbox.draft = null;
      sandbox.state = "ready";
      sandbox.lastActiveMs = Date.now();
      return this.#info(sandbox, noUsage); // nothing has run in it
    };
    let outcome: OperationEvent["outcome"] = "ok";
    try {
      return await this.#mutex.run(id, async () => {
        await this.#clearLost(id, sandbox);
        sandbox.draft = draft;
        if (custody === undefined) return make(plan, []);
        return custody.create({ plan, make, signal, ...(replan && { replan }) });
      });
    } catch (error) {
      outcome = isSquashError(error) ? error.code : "internal";
      if (this.#byId.get(id) === sandbox && sandbox.state === "creating") this.#byId.delete(id);
      throw error;
    } finally {
      const pooled = draft.cell?.pooled ?? false;
      this.#emit({
        type: "sandbox.create",
        sandbox: id,
        outcome,
        durationMs: performance.now() - start,
        stages: timings,
        pooled,
      });
    }
  }

  async list(): Promise<SandboxInfo[]> {
    const shown = this.all().filter((sandbox) => sandbox.record !== null);
    const infos = await Promise.all(shown.map((sandbox) => this.#info(sandbox)));
    return infos.toSorted((a, b) => (a.created < b.created ? -1 : a.created > b.created ? 1 : a.id < b.id ? -1 : 1));
  }

  async get(id: string): Promise<SandboxInfo> {
    return this.#info(this.find(id));
  }

  async destroy(id: string): Promise<void> {
    this.find(id);
    const { custody } = this.#parts;
    await (custody === undefined ? this.discard(id) : custody.destroy(id, () => this.discard(id)));
  }

  /** Removes a sandbox, whatever becomes of its files. */
  async discard(id: string): Promise<void> {
    const sandbox = this.find(id);
    const start = performance.now();
    const timings: Timings = {};
    let outcome: OperationEvent["outcome"] = "ok";
    try {
      await this.#mutex.run(id, () => this.#destroyNow(sandbox, timings));
    } catch (error) {
      outcome = isSquashError(error) ? error.code : "internal";
      throw error;
    } finally {
      this.#emit({
        type: "sandbox.destroy",
        sandbox: id,
        outcome,
        durationMs: performance.now() - start,
        stages: timings,
      });
    }
  }

  async exec(id: string, asked: ExecRequest, signal: AbortSignal): Promise<ExecResult> {
    const sandbox = this.find(id);
    while (sandbox.changing !== null) await sandbox.changing;
    const record = this.mustBeReady(sandbox);
    const request = execDefaults([record], asked, this.#parts.injection.environment(record));
    const start = performance.now();
    const abort = new AbortController();
    const seq = ++sandbox.lastSeq;
    const started = new Date();
    let outcome: OperationEvent["outcome"] = "ok";
    sandbox.lastActiveMs = started.getTime();
    sandbox.running.add(abort);
    const forward = (): void => abort.abort();
    signal.addEventListener("abort", forward, { once: true });
    if (signal.aborted) forward();
    try {
      const result = await this.#parts.kernel.run(record.cell.index, toCommand(request), abort.signal);
      if (result.cancelled)
        throw new SquashError("cancelled", `Cannot finish the command in "${id}": it was cancelled`);
      const killed = result.exitCode === 137;
      const usage = killed ? await this.#parts.kernel.usage(record.cell.index) : noUsage;
      const oomKilled = killed && usage.oomKills > (this.#seenOomKills.get(sandbox) ?? 0);
      if (oomKilled) this.#seenOomKills.set(sandbox, usage.oomKills);
      const logged = execResult({ seq, request, started, durationMs: performance.now() - start, result, oomKilled });
      if (this.#byId.get(id) === sandbox && sandbox.state === "ready") await this.#keepLog(id, logged);
      return logged;
    } catch (error) {
      outcome = isSquashError(error) ? error.code : "internal";
      throw error;
    } finally {
      signal.removeEventListener("abort", forward);
      sandbox.running.delete(abort);
      sandbox.lastActiveMs = Date.now();
      this.#emit({ type: "sandbox.exec", sandbox: id, outcome, durationMs: performance.now() - start, stages: {} });
    }
  }

  /** The command has run: its caller gets the result also where the disk has no room for it. */
  async #keepLog(id: string, result: ExecResult): Promise<void> {
    await this.#parts.store.appendLog(id, result).catch((error: Error) => {
      this.#options.emit({ type: "unwritten", sandbox: id, what: "log", error: error.message });
    });
  }

  async logs(id: string): Promise<ExecResult[]> {
    this.find(id);
    return this.#parts.store.readLog(id);
  }

  network(id: string): Promise<NetworkInfo> {
    return this.#live.network(id);
  }

  /** Figures of all sandboxes that have a network. */
  networks(): Promise<NetworkFigures[]> {
    return this.#live.figures();
  }

  setNetwork(id: string, request: NetworkRequest): Promise<NetworkInfo> {
    return this.#live.setNetwork(id, request);
  }

  async setSecrets(id: string, request: GrantRequest): Promise<SandboxInfo> {
    await this.#live.setSecrets(id, request);
    return this.get(id);
  }

  /** Throws `invalid_request` for secrets that no sandbox can have. */
  checkSecrets(names: readonly string[] | null): void {
    this.#parts.networks.checkSecrets(names);
  }

  /** Stops taking requests and kills running commands; the sandboxes stay. */
  async close(): Promise<void> {
    this.#closed = true;
    for (const sandbox of this.all()) for (const running of sandbox.running) running.abort();
    await Promise.all(this.all().map((sandbox) => this.#mutex.run(sandbox.id, () => this.#saveActivity(sandbox))));
  }

  readonly #seenOomKills = new WeakMap<Sandbox, number>();

  #emit(event: OperationEvent): void {
    this.#options.emit(event);
  }

  /** Takes the name and a place, at once, so that neither can be taken twice. A lost sandbox's name may be used again. */
  #reserve(id: string): Sandbox {
    if (this.#closed) throw new SquashError("shutting_down", `Cannot create sandbox "${id}": squashd is shutting down`);
    const existing = this.#byId.get(id);
    if (existing !== undefined && existing.state !== "lost") {
      throw new SquashError(
        "sandbox_exists",
        `Cannot create sandbox "${id}": it already exists and is ${existing.state}`,
      );
    }
    if (existing === undefined && this.#byId.size >= this.#options.maxSandboxes) {
      throw new SquashError(
        "sandbox_limit",
        `Cannot create sandbox "${id}": sandbox limit reached (${this.#options.maxSandboxes}); destroy one or raise SQUASH_MAX_SANDBOXES`,
      );
    }
    const sandbox = newSandbox(id, "creating");
    if (existing !== undefined) {
      sandbox.record = existing.record;
      sandbox.snapshots = existing.snapshots;
    }
    this.#byId.set(id, sandbox);
    return sandbox;
  }

  /** Removes what a lost sandbox of the same name left. */
  async #clearLost(id: string, sandbox: Sandbox): Promise<void> {
    if (sandbox.record === null) return;
    const index = sandbox.record.cell.index;
    const images = imagesOf(sandbox.record, sandbox.snapshots);
    sandbox.record = null;
    sandbox.snapshots = [];
    const failures = await takeDown(this.#stages, { id, index });
    if (failures[0] !== undefined) throw cannotDestroy(id, failures);
    await this.#options.forgotten?.(images);
  }

  async #destroyNow(sandbox: Sandbox, timings: Timings): Promise<void> {
    if (this.#byId.get(sandbox.id) !== sandbox || sandbox.record === null) throw notFound(sandbox.id);
    const record = sandbox.record;
    sandbox.state = "destroying";
    for (const running of sandbox.running) running.abort();
    const { id } = sandbox;
    const { index } = record.cell;
    const draft: SandboxDraft = { id, index, layerKeys: record.layerKeys, generation: record.upper.generation };
    const failures = await takeDown(this.#stages, draft, timings);
    if (failures.length > 0) {
      // Its record is gone first, so it can only be destroyed again; what is left of it is kept to be taken down then.
      sandbox.record = { ...record, layerKeys: draft.layerKeys ?? [] };
      sandbox.state = "failed";
      sandbox.reason = failures.map((error) => error.message).join("; ");
      throw cannotDestroy(sandbox.id, failures);
    }
    this.#byId.delete(sandbox.id);
    await this.#options.forgotten?.(imagesOf(record, sandbox.snapshots));
  }

  async #saveActivity(sandbox: Sandbox): Promise<void> {
    if (sandbox.state !== "ready" || sandbox.record === null) return;
    const lastActive = new Date(sandbox.lastActiveMs).toISOString();
    if (sandbox.record.lastActive === lastActive) return;
    sandbox.record = { ...sandbox.record, lastActive };
    await this.#parts.store.writeRecord(sandbox.record).catch((error: Error) => {
      this.#options.emit({ type: "unwritten", sandbox: sandbox.id, what: "record", error: error.message });
    });
  }

  /** Throws `sandbox_not_found`. */
  find(id: string): Sandbox {
    const sandbox = this.#byId.get(id);
    if (sandbox === undefined) throw notFound(id);
    return sandbox;
  }

  /** Throws `sandbox_not_ready`, `shutting_down`. */
  mustBeReady(sandbox: Sandbox): SandboxRecord {
    if (this.#closed)
      throw new SquashError("shutting_down", `Cannot use sandbox "${sandbox.id}": squashd is shutting down`);
    if (sandbox.state === "ready" && sandbox.record !== null) return sandbox.record;
    const reason = sandbox.reason === null ? "" : ` (${sandbox.reason})`;
    throw new SquashError(
      "sandbox_not_ready",
      `Cannot use sandbox "${sandbox.id}": it is ${sandbox.state}${reason}, not ready`,
    );
  }

  /** `used` is what its processes have used, where that is known. */
  async #info(sandbox: Sandbox, used?: CellUsage): Promise<SandboxInfo> {
    const { record } = sandbox;
    if (record === null) {
      throw new SquashError("sandbox_not_ready", `Cannot show sandbox "${sandbox.id}": it is ${sandbox.state}`);
    }
    const { kernel, store } = this.#parts;
    const alive = sandbox.state === "ready";
    const [usage, upperBytes] = alive
      ? await Promise.all([
          used ?? kernel.usage(record.cell.index),
          store.upperBytes(sandbox.id, record.upper.generation),
        ])
      : [noUsage, 0];
    const addresses = this.#parts.networks.addressesOf(record.cell.index);
    const cgroup = kernel.cgroupPath(record.cell.index);
    const retention = retentionOf(record.retention, this.#options.retention);
    const grantedSecrets = this.#parts.networks.granted(secretAccess(record));
    return sandboxInfo(sandbox, record, { usage, upperBytes, cgroup, retention, grantedSecrets, ...addresses });
  }
}

function imagesOf(record: SandboxRecord, snapshots: readonly SnapshotRecord[]): string[] {
  return [...record.snapshots, ...snapshots.flatMap(({ images }) => images)];
}

function notFound(id: string): SquashError {
  return new SquashError("sandbox_not_found", `Cannot find sandbox "${id}": not found`);
}

function cannotDestroy(id: string, failures: readonly Error[]): SquashError {
  const leftovers = failures.map((error) => error.message);
  return new SquashError("kernel", `Cannot destroy sandbox "${id}" completely: ${leftovers.join("; ")}; try again`, {
    details: { leftovers },
  });
}

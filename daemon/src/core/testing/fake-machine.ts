import { basename } from "node:path";
import { Readable } from "node:stream";
import { SquashError } from "@squash/sdk/errors";
import type { ExecResult } from "@squash/sdk/protocol";
import type { ImageDefaults } from "../image-defaults.js";
import { ownerOfImage } from "../image-ids.js";
import type {
  CapturedRoot,
  CellProcess,
  CellTask,
  Command,
  CommandResult,
  Comparison,
  Kernel,
  ModuleCatalog,
  ModuleImage,
  RootPlan,
  SandboxRecord,
  SandboxStore,
  SnapshotImageFacts,
  SnapshotRecord,
  StoredSandbox,
  TakenOutput,
  UpperPlan,
} from "../ports.js";
import { FakeDeadlines } from "./fake-deadlines.js";
import { kernelError } from "./kernel-error.js";
import { success } from "./success.js";

interface FakeCell {
  readonly process: CellProcess;
  root: RootPlan | null;
  limited: boolean;
}

/**
 * A machine in memory: kernel, disk and modules. Its whole state is readable text. It refuses what a real one would (a second mount, a
 * root without an upper, a cell that exists), and fails any one operation on demand.
 */
export class FakeMachine implements Kernel, SandboxStore, ModuleCatalog {
  readonly bootId: string = "boot-1";
  readonly cells = new Map<number, FakeCell>();
  readonly layers = new Set<string>();
  readonly uppers = new Set<string>();
  readonly netns = new Set<string>();
  /** what each cell may reach, by its index */
  readonly networks = new Map<number, string>();
  readonly directories = new Set<string>();
  readonly images = new Set<string>();
  readonly records = new Map<string, SandboxRecord>();
  readonly snapshots = new Map<string, readonly SnapshotRecord[]>();
  /** what was captured, by image */
  readonly captured = new Map<string, readonly CapturedRoot[]>();
  /** images that have a digest */
  readonly sealed = new Set<string>();
  /** images that are not what they were */
  readonly damaged = new Set<string>();
  readonly frozen = new Set<number>();
  readonly deadlines = new FakeDeadlines();
  tasksInside: CellTask[] = [];
  /** why records that are missing cannot be read; null where they are just not there */
  damage: string | null = null;
  readonly logs = new Map<string, ExecResult[]>();
  readonly modules = new Set<string>(["000-base"]);
  /** what all of them say */
  defaults: ImageDefaults | undefined;
  /** operations that fail, with how often they still will */
  readonly failing = new Map<string, number>();
  /** operations so far */
  readonly calls: string[] = [];
  runCommand: (command: Command, signal: AbortSignal) => Promise<CommandResult> = () => Promise.resolve(success(""));
  oomKills = 0;
  /** what every operation waits for */
  halt: Promise<void> = Promise.resolve();
  /** called after each operation that has succeeded */
  afterStep: (operation: string) => void = () => undefined;
  #nextPid = 100;
  #deathListener: (index: number, pid: number) => void = () => undefined;

  /** Everything that is left on the machine, a line each. */
  state(): string[] {
    return [
      ...[...this.cells.keys()].map((index) => `cell ${index}`),
      ...[...this.layers].map((key) => `layer ${key}`),
      ...[...this.uppers].map((path) => `upper ${path}`),
      ...[...this.netns].map((name) => `netns ${name}`),
      ...[...this.networks].map(([index, text]) => `network ${index} ${text}`),
      ...[...this.directories].map((id) => `directory ${id}`),
      ...[...this.images].map((id) => `image ${id}`),
      ...[...this.records.keys()].map((id) => `record ${id}`),
      ...[...this.captured.keys()].map((image) => `snapshot ${image}`),
      ...[...this.frozen].map((index) => `frozen ${index}`),
    ].toSorted();
  }

  /** An init dies by itself. */
  crashCell(index: number): void {
    const { process } = this.#cell(index);
    this.deadlines.set(index, null);
    this.cells.set(index, { process, root: null, limited: false });
    this.#deathListener(index, process.pid);
  }

  onCellDeath(listener: (index: number, pid: number) => void): void {
    this.#deathListener = listener;
  }

  async makeCell(index: number): Promise<CellProcess> {
    await this.step("makeCell");
    if (this.cells.has(index)) throw kernelError(`make cell ${index}, which exists`, "EEXIST");
    const process = { pid: this.#nextPid++, startTime: 1n };
    this.cells.set(index, { process, root: null, limited: false });
    return process;
  }

  async adoptCell(index: number, process: CellProcess): Promise<boolean> {
    await this.step("adoptCell");
    return this.cells.get(index)?.process.pid === process.pid && this.cells.get(index)?.root !== null;
  }

  async killCell(index: number): Promise<void> {
    await this.step("killCell");
    this.cells.delete(index);
    this.frozen.delete(index);
    this.deadlines.set(index, null);
    this.networks.delete(index); // the link goes with it
  }

  async limitCell(index: number): Promise<void> {
    await this.step("limitCell");
    this.#cell(index).limited = true;
  }

  async freezeCell(index: number, frozen: boolean): Promise<void> {
    await this.step(frozen ? "freezeCell" : "thawCell");
    this.#cell(index);
    if (frozen) this.frozen.add(index);
    else this.frozen.delete(index);
    if (frozen || !this.deadlines.hasPassed(index)) return;
    this.crashCell(index);
    throw kernelError(`thaw cell ${index}`, "ETIME");
  }

  bootMs(): number {
    return this.deadlines.nowMs;
  }

  async setDeadline(index: number, bootMs: number | null): Promise<void> {
    await this.step("setDeadline");
    this.#cell(index);
    if (this.deadlines.hasPassed(index)) throw kernelError(`set the deadline of cell ${index}`, "ETIME");
    this.deadlines.set(index, bootMs);
  }

  /** Lets time pass; inits whose deadline is over die, unless they are frozen. */
  advance(ms: number): void {
    for (const index of this.deadlines.advance(ms)) if (!this.frozen.has(index)) this.crashCell(index);
  }

  async capture(image: string, roots: readonly CapturedRoot[], sizeLimit = Infinity): Promise<number> {
    this.captured.set(image, roots); // what a failure leaves is the caller's to remove
    await this.step("capture");
    for (const root of roots) {
      if ("key" in root && !this.layers.has(root.key)) throw kernelError(`open ${root.key}`, "ENOENT");
      if (root.kind === "upper" && !this.frozen.has(root.index)) throw new Error("captured what may be written to");
    }
    if (sizeLimit < 4096) throw kernelError(`write ${image}`, "EFBIG");
    return 4096;
  }

  async flushPool(): Promise<void> {
    await this.step("flushPool");
  }

  async snapshotUpper(upper: string, image: string): Promise<number> {
    await this.step("snapshotUpper");
    if (this.captured.has(image)) throw kernelError(`make ${image}`, "EEXIST");
    this.captured.set(image, [{ kind: "upper", path: upper, index: -1 }]);
    return 4096;
  }

  async compare(output: string, { from, to }: Comparison): Promise<number> {
    this.captured.set(output, [...from, ...to]);
    await this.step("compare");
    for (const root of [...from, ...to])
      if (root.kind === "layer" && !this.layers.has(root.key)) throw kernelError(`open ${root.key}`, "ENOENT");
    return 0;
  }

  async takeOutput(image: string): Promise<TakenOutput> {
    await this.step("takeOutput");
    this.captured.delete(this.snapshotImage(image));
    return { chunks: () => Readable.from([]), close: () => Promise.resolve() };
  }

  readonly tasks = (): Promise<CellTask[]> => Promise.resolve(this.tasksInside);

  async giveRoot(index: number, plan: RootPlan): Promise<void> {
    await this.step("giveRoot");
    if (!this.uppers.has(plan.upper)) throw kernelError(`find upper ${plan.upper}`, "ENOENT");
    for (const layer of plan.layers) if (!this.layers.has(layer)) throw kernelError(`find layer ${layer}`, "ENOENT");
    const cell = this.#cell(index);
    if (!cell.limited) throw new Error(`cell ${index} got its root before its limits`);
    cell.root = plan;
  }

  async mountUpper(plan: UpperPlan): Promise<void> {
    await this.step("mountUpper");
    if (this.uppers.has(plan.path)) throw kernelError(`mount ${plan.path} twice`, "EBUSY");
    this.uppers.add(plan.path);
  }

  async unmountUpper(path: string): Promise<void> {
    await this.step("unmountUpper");
    for (const [index, cell] of this.cells)
      if (cell.root?.upper === path) throw new Error(`upper ${path} is in use by cell ${index}`);
    this.uppers.delete(path);
  }

  async forgetOrigins(path: string): Promise<void> {
    await this.step("forgetOrigins");
    if (!this.uppers.has(path)) throw kernelError(`open ${path}`, "ENOENT");
  }

  readonly netnsName = (id: string): string => `squash-${id}`;

  async publishNetns(index: number, name: string): Promise<void> {
    await this.step("publishNetns");
    this.#cell(index);
    if (this.netns.has(name)) throw kernelError(`publish ${name}`, "EEXIST");
    this.netns.add(name);
  }

  async withdrawNetns(name: string): Promise<void> {
    await this.step("withdrawNetns");
    this.netns.delete(name);
  }

  async mountLayer(key: string): Promise<void> {
    await this.step("mountLayer");
    if (this.layers.has(key)) throw kernelError(`mount layer ${key} twice`, "EEXIST");
    this.layers.add(key);
  }

  async unmountLayer(key: string): Promise<void> {
    await this.step("unmountLayer");
    this.layers.delete(key);
  }

  async mountedLayers(): Promise<string[]> {
    await this.step("mountedLayers");
    return [...this.layers];
  }

  run(index: number, command: Command, signal: AbortSignal): Promise<CommandResult> {
    if (this.#cell(index).root === null) throw new SquashError("sandbox_broken", `Cannot run in cell ${index}`);
    return this.runCommand(command, signal);
  }

  usage(): Promise<{ memoryBytes: number; oomKills: number }> {
    return Promise.resolve({ memoryBytes: 0, oomKills: this.oomKills });
  }

  cellsInCgroups(): Promise<number[]> {
    return Promise.resolve([...this.cells.keys()]);
  }

  cgroupPath(index: number): string {
    return `/cgroup/c${index}`;
  }

  upperPath(id: string, generation: number): string {
    return `/sandboxes/${id}/upper.${generation}`;
  }

  imagePath(id: string, generation: number): string {
    return `${this.upperPath(id, generation)}.img`;
  }

  subvolumePath(id: string, generation: number): string {
    return `pool/u/${id}.${generation}`;
  }

  upperGenerations(id: string): Promise<number[]> {
    const start = `/sandboxes/${id}/upper.`;
    const mounted = [...this.uppers].filter((path) => path.startsWith(start));
    return Promise.resolve(mounted.map((path) => Number(path.slice(start.length))));
  }

  async makeUpper(): Promise<void> {
    await this.step("makeUpper");
  }

  async removeUpper(id: string, generation: number): Promise<void> {
    await this.step("removeUpper");
    const path = this.upperPath(id, generation);
    if (this.uppers.has(path)) throw kernelError(`remove ${path}`, "EBUSY");
    this.images.delete(this.imagePath(id, generation));
  }

  async makeDirectories(id: string): Promise<void> {
    await this.step("makeDirectories");
    if (this.directories.has(id)) throw kernelError(`make directory ${id}`, "EEXIST");
    this.directories.add(id);
  }

  async makeImage(id: string, generation: number): Promise<void> {
    await this.step("makeImage");
    this.images.add(this.imagePath(id, generation));
  }

  async removeDirectories(id: string): Promise<void> {
    await this.step("removeDirectories");
    if ((await this.upperGenerations(id)).length > 0) throw kernelError(`remove directory ${id}`, "EBUSY");
    this.directories.delete(id);
    this.snapshots.delete(id);
    for (const image of this.images) if (image.startsWith(`/sandboxes/${id}/`)) this.images.delete(image);
  }

  async writeRecord(record: SandboxRecord): Promise<void> {
    await this.step("writeRecord");
    this.records.set(record.id, record);
  }

  async removeRecord(id: string): Promise<void> {
    await this.step("removeRecord");
    this.records.delete(id);
  }

  async appendLog(id: string, result: ExecResult): Promise<void> {
    await this.step("appendLog");
    this.logs.set(id, [...(this.logs.get(id) ?? []), result]);
  }

  readLog(id: string): Promise<ExecResult[]> {
    return Promise.resolve((this.logs.get(id) ?? []).toSorted((a, b) => a.seq - b.seq));
  }

  list(): Promise<StoredSandbox[]> {
    return Promise.resolve(
      [...this.directories].map((id) => ({
        id,
        record: this.records.get(id) ?? null,
        damage: this.records.has(id) ? null : this.damage,
        lastSeq: Math.max(0, ...(this.logs.get(id) ?? []).map((log) => log.seq)),
        snapshots: this.snapshots.get(id) ?? [],
      })),
    );
  }

  isUpperMounted(id: string, generation: number): Promise<boolean> {
    return Promise.resolve(this.uppers.has(this.upperPath(id, generation)));
  }

  hasImage(id: string, generation: number): Promise<boolean> {
    return Promise.resolve(this.images.has(this.imagePath(id, generation)));
  }

  async writeSnapshots(id: string, snapshots: readonly SnapshotRecord[]): Promise<void> {
    await this.step("writeSnapshots");
    this.snapshots.set(id, snapshots);
  }

  snapshotImage(image: string): string {
    return ownerOfImage(image) === null ? `snapshots/${image}.erofs` : `pool/s/${image}`;
  }

  listSnapshotImages(): Promise<string[]> {
    return Promise.resolve([...this.captured.keys()].map((path) => basename(path, ".erofs")));
  }

  snapshotFacts(image: string): SnapshotImageFacts | null {
    if (!this.captured.has(this.snapshotImage(image))) return null;
    return { bytes: 4096, allocatedBytes: 4096, sha256: this.sealed.has(image) ? image.repeat(2) : null };
  }

  async checkSnapshotImage(image: string): Promise<void> {
    await this.step("checkSnapshotImage");
    const isThere = this.captured.has(this.snapshotImage(image));
    if (!isThere || this.damaged.has(image))
      throw new SquashError("snapshot_damaged", `Cannot use snapshot image "${image}"`);
  }

  readonly syncSnapshotImage = (): Promise<void> => this.step("syncSnapshotImage");

  async sealSnapshotImage(image: string): Promise<void> {
    await this.step("sealSnapshotImage");
    this.sealed.add(image);
  }

  async removeSnapshotImage(image: string): Promise<number> {
    await this.step("removeSnapshotImage");
    this.sealed.delete(image);
    return this.captured.delete(this.snapshotImage(image)) ? 4096 : 0;
  }

  readonly upperBytes = (): Promise<number> => Promise.resolve(0);

  resolve(name: string): Promise<ModuleImage> {
    if (!this.modules.has(name))
      return Promise.reject(new SquashError("module_not_found", `Cannot find module "${name}"`));
    const { defaults } = this;
    const image = { name, image: `modules/${name}.squashfs`, format: "squashfs", identity: "1" } as const;
    return Promise.resolve(defaults === undefined ? image : { ...image, defaults });
  }

  defaultLayers(): Promise<readonly string[]> {
    return Promise.resolve(["000-base"]);
  }

  /** Counts an operation, and fails it where that was asked for. */
  async step(operation: string): Promise<void> {
    await this.halt;
    this.calls.push(operation);
    const left = this.failing.get(operation) ?? 0;
    if (left === 0) {
      this.afterStep(operation);
      return;
    }
    this.failing.set(operation, left - 1);
    throw kernelError(operation, "EIO");
  }

  #cell(index: number): FakeCell {
    const cell = this.cells.get(index);
    if (cell === undefined) throw kernelError(`find cell ${index}`, "ESRCH");
    return cell;
  }
}

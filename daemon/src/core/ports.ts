import type { NetworkSettings } from "./egress/settings.js";
import type { ImageDefaults } from "./image-defaults.js";
import type { RootTrust } from "./secrets/root-trust.js";
import type { ExecResult, SnapshotOrigin } from "@squash/sdk/protocol";

/** Which process a cell's init is: the start time (clock ticks since boot) tells it from a later process with the same number. */
export interface CellProcess {
  readonly pid: number;
  readonly startTime: bigint;
}

export interface CellLimits {
  readonly memoryBytes: number;
  /** microseconds of processor time in each 100 ms */
  readonly cpuQuotaUs: number;
  /** processes and threads together */
  readonly pids: number;
}

export interface RootPlan {
  /** whether the upper is new */
  readonly fresh: boolean;
  /** whether the host's name is to be written into it, which a sandbox that had its files before has */
  readonly named: boolean;
  /** whether the cell has a root already, in which nothing runs; that goes first, so that on failure the cell is of no more use */
  readonly again?: boolean;
  readonly hostname: string;
  /** mount point of the upper on the host */
  readonly upper: string;
  /** keys of mounted layers, topmost first */
  readonly layers: readonly string[];
}

export interface UpperPlan {
  /** mount point on the host; must exist */
  readonly path: string;
  /** an ext4 image on the host, or a subvolume of the pool, as `subvolumePath` says; null for a tmpfs */
  readonly image: string | null;
  /** 0 for a subvolume that exists; another is made, in place of what is there of that name */
  readonly sizeBytes: number;
  /** cell whose root will own it */
  readonly index: number;
}

export interface Command {
  readonly argv: readonly string[];
  /** whether `argv[0]` is a text for /bin/sh */
  readonly shell: boolean;
  readonly workdir: string;
  /** name or number inside; "" is root */
  readonly user: string;
  readonly env: Readonly<Record<string, string>>;
  readonly stdin: string;
  readonly timeoutMs: number;
  /** bytes kept of each output; the rest is drained */
  readonly outputLimit: number;
}

export interface CommandResult {
  readonly exitCode: number;
  readonly stdout: Buffer;
  readonly stderr: Buffer;
  readonly stdoutTruncated: boolean;
  readonly stderrTruncated: boolean;
  readonly timedOut: boolean;
  readonly cancelled: boolean;
}

export interface CellUsage {
  readonly memoryBytes: number;
  /** processes that the kernel killed for lack of memory, in the life of the cell */
  readonly oomKills: number;
}

/**
 * A directory of which an image is captured: the files that a sandbox has written, a mounted layer, or, alone, a layer with all that it has, which
 * are also owners that no sandbox sees, devices, and the attributes of overlayfs. Also alone, what a confined tool has unpacked, in which
 * overlayfs' marks have the names that anybody may give; `path` is relative to the data directory.
 */
export type CapturedRoot =
  | { readonly kind: "upper"; readonly path: string; readonly index: number }
  | { readonly kind: "layer"; readonly key: string }
  | { readonly kind: "exact"; readonly key: string }
  | { readonly kind: "unpacked"; readonly path: string };

/** What is to be compared, each stack topmost first, and what is to be told of it. With nothing in `from` all is new. */
export interface Comparison {
  readonly from: readonly CapturedRoot[];
  readonly to: readonly CapturedRoot[];
  /** bytes of the path of the only entry to compare, "." for the root, told of also when it is the same; empty for all */
  readonly only: Buffer;
  /** whose contents are written: of no file, of those that are there afterwards, or of both sides */
  readonly contents: "none" | "new" | "both";
  /** larger files are told of without content */
  readonly contentLimit: number;
  /** a larger output fails with EFBIG */
  readonly outputLimit: number;
}

/** A process in a cell, besides those of squash itself. */
export interface CellTask {
  /** on the host */
  readonly pid: number;
  /** what it calls itself, which may be anything */
  readonly name: string;
}

/** The kernel as the domain sees it. Every method throws `SquashError` and may be repeated after a failure. */
export interface Kernel {
  makeCell(index: number, options: { readonly nestedUserns: boolean }): Promise<CellProcess>;
  /** Takes a living cell of an earlier squashd over; false when that process is gone. */
  adoptCell(index: number, process: CellProcess): Promise<boolean>;
  /** Kills everything in it and removes its groups; idempotent, also for cells that nobody knows. */
  killCell(index: number): Promise<void>;
  limitCell(index: number, limits: CellLimits): Promise<void>;
  /** Throws `kernel` with errno ETIME instead of thawing a cell whose deadline has passed, which is killed. */
  freezeCell(index: number, frozen: boolean): Promise<void>;
  /** Milliseconds since the machine was started, those while it was suspended included. */
  bootMs(): number;
  /**
   * When everything in the cell is killed whatever becomes of squashd, by the clock of `bootMs`; null for never. It strikes by itself, and is heard of
   * as any death. Frozen, a cell has it as well. Throws `kernel`: with errno ETIME when the one before has passed, with ESRCH when it is dead.
   */
  setDeadline(index: number, bootMs: number | null): Promise<void>;
  giveRoot(index: number, plan: RootPlan): Promise<void>;
  mountUpper(plan: UpperPlan): Promise<void>;
  unmountUpper(path: string): Promise<void>;
  /**
   * Has files of an upper forget of which of a layer they are copies: where the stack is another one overlayfs would take copy and original for
   * the same file. Its overlay is not to be used any more. Throws `kernel`: with errno EAGAIN while others go through files.
   */
  forgetOrigins(path: string): Promise<void>;
  /** Name under which `ip netns` is to list a sandbox's network namespace, which is none of another squashd's. */
  netnsName(id: string): string;
  publishNetns(index: number, name: string): Promise<void>;
  withdrawNetns(name: string): Promise<void>;
  /** `image` is relative to the data directory. */
  mountLayer(key: string, image: string, type: LayerFormat): Promise<void>;
  unmountLayer(key: string): Promise<void>;
  mountedLayers(): Promise<string[]>;
  /**
   * Writes an erofs image of directories, topmost first, as overlayfs would merge them; `image` is relative to the data directory and must not
   * exist. Nothing may write to them meanwhile. Returns its size in bytes. What a failure leaves of the image is the caller's to remove. Whoever
   * removes it earlier ends the work, which then fails. With layers alone it yields to all else that the machine has to do,
   * and is on the disk in the end; with an upper, whose sandbox stands still, that is left to `syncSnapshotImage`. An image of more
   * than `sizeLimit` bytes fails with EFBIG.
   */
  capture(image: string, roots: readonly CapturedRoot[], sizeLimit?: number): Promise<number>;
  /** Writes all that there is now in the pool to the disk. */
  flushPool(): Promise<void>;
  /**
   * Makes a read-only snapshot of an upper that is a subvolume, to which nothing may write meanwhile. Both are relative to the data directory.
   * Returns the bytes that its files take.
   */
  snapshotUpper(upper: string, image: string): Promise<number>;
  /**
   * Compares two stacks of directories, which nothing may write to meanwhile, and writes records of what differs, as core/diff-records.ts reads
   * them, to the new file `output`, relative to the data directory. Ends early once that is removed. Returns its size in bytes.
   */
  compare(output: string, comparison: Comparison): Promise<number>;
  /** Processes in a cell that are not squash's own; `init` is that of its init. */
  tasks(index: number, init: number): Promise<CellTask[]>;
  /** Runs a command to its end; `signal` kills its whole tree. */
  run(index: number, command: Command, signal: AbortSignal): Promise<CommandResult>;
  usage(index: number): Promise<CellUsage>;
  /** Indexes of all cells that have a cgroup, known or not. */
  cellsInCgroups(): Promise<number[]>;
  /** Path of the cell's (memory) cgroup on the host. */
  cgroupPath(index: number): string;
  /** An identifier of this boot of the machine. */
  readonly bootId: string;
  /** Called with the index of a cell, and the process id of its init, when that has died without being asked to. */
  onCellDeath(listener: (index: number, pid: number) => void): void;
}

/** What is kept of a sandbox on disk. */
export interface SandboxRecord {
  readonly version: 1;
  readonly id: string;
  readonly owner: string;
  readonly task: string;
  /** module names, topmost first */
  readonly layers: readonly string[];
  /** images of snapshots that lie above those and below the upper, topmost first */
  readonly snapshots: readonly string[];
  /** keys under which all of them are mounted, in the order of the stack, with that of `trust` between modules and snapshots */
  readonly layerKeys: readonly string[];
  /** what its root has besides for the sake of secrets; absent where it has nothing */
  readonly trust?: RootTrust;
  /** label of the snapshot that was restored last; null for none */
  readonly restored: string | null;
  /** label of the snapshot that was taken or restored last: what the next one follows upon */
  readonly head: string | null;
  /** the sandbox, and the label if one was named, that it was forked from */
  readonly forkedFrom: string | null;
  readonly created: string;
  readonly lastActive: string;
  readonly cpu: number;
  readonly memoryMb: number;
  readonly pids: number;
  readonly maxLifetimeS: number;
  readonly network: NetworkSettings;
  readonly nestedUserns: boolean;
  readonly upper: UpperRecord;
  readonly cell: { readonly index: number; readonly pid: number; readonly startTime: string; readonly bootId: string };
  readonly restarts: number;
  /** what its modules said of how to start programs when it was made */
  readonly defaults?: ImageDefaults;
  /** names of the secrets that it may use; null or absent for all that there are, those included that come later */
  readonly secrets?: readonly string[] | null;
  /** which of its snapshots stay; what it does not say is the daemon's to say */
  readonly retention?: Partial<RetentionLimits>;
}

/** 0 says nothing. */
export interface RetentionLimits {
  /** so many of the newest stay */
  readonly keepLast: number;
  /** those that are no older stay, in seconds */
  readonly keepForS: number;
}

/** Where what sandboxes write is kept: in memory, in an ext4 image each, or in a subvolume each of one btrfs. */
export type UpperBackend = "tmpfs" | "loop" | "btrfs";

interface UpperRecord {
  readonly backend: UpperBackend;
  readonly limitBytes: number;
  /** which of the uppers that it has had; a restore makes a new one before the old one goes */
  readonly generation: number;
}

/** A moment of a sandbox's files. */
export interface SnapshotRecord {
  readonly label: string;
  /** what came before it in the sandbox's history */
  readonly parent: string | null;
  readonly created: string;
  /** bytes of its own image */
  readonly size: number;
  /** its module names then, topmost first */
  readonly layers: readonly string[];
  /** images that make up the files above those, topmost first, its own included */
  readonly images: readonly string[];
  /** the same files in images as they were before these were merged, for living stacks that have those still; they may be gone */
  readonly mergedFrom?: readonly string[];
  readonly by?: string;
  readonly origin?: SnapshotOrigin;
  readonly pinned?: boolean;
}

/** What a sandbox's directory was found to hold. Without record and damage it is half-made or half-removed. */
export interface StoredSandbox {
  readonly id: string;
  readonly record: SandboxRecord | null;
  /** why a record that is there cannot be read; such a directory is left alone */
  readonly damage: string | null;
  /** highest `seq` in its log */
  readonly lastSeq: number;
  /** oldest first */
  readonly snapshots: readonly SnapshotRecord[];
}

/** A file that goes when it is closed. */
export interface TakenOutput {
  /** The content from its beginning on; can be asked for again. */
  chunks(): AsyncIterable<Buffer>;
  close(): Promise<void>;
}

/** Where sandboxes' files lie and how their metadata is kept. */
export interface SandboxStore {
  /** Mount point of a sandbox's upper. */
  upperPath(id: string, generation: number): string;
  /** Image file of a sandbox's upper; only for the `loop` backend. */
  imagePath(id: string, generation: number): string;
  /** Subvolume of a sandbox's upper, relative to the data directory; only for the `btrfs` backend. */
  subvolumePath(id: string, generation: number): string;
  /** Generations of uppers that have a mount point. */
  upperGenerations(id: string): Promise<number[]>;
  /** Makes the mount point. Idempotent. */
  makeUpper(id: string, generation: number): Promise<void>;
  /** Removes mount point and image file or subvolume, of which nothing may be mounted. Idempotent. */
  removeUpper(id: string, generation: number): Promise<void>;
  /** Makes the directories; fails when the sandbox has any already. */
  makeDirectories(id: string): Promise<void>;
  /** Makes the image file for the `loop` backend. */
  makeImage(id: string, generation: number, sizeBytes: number): Promise<void>;
  /** Removes the directory; refuses while something is mounted below it. Idempotent. */
  removeDirectories(id: string): Promise<void>;
  /** Atomic: a crash leaves the old or the new record. */
  writeRecord(record: SandboxRecord): Promise<void>;
  /** Idempotent. Without its record a sandbox is a leftover. */
  removeRecord(id: string): Promise<void>;
  appendLog(id: string, result: ExecResult): Promise<void>;
  readLog(id: string): Promise<ExecResult[]>;
  list(): Promise<StoredSandbox[]>;
  /** Whether something is mounted at the upper's place. */
  isUpperMounted(id: string, generation: number): Promise<boolean>;
  /** Whether there is an image file or a subvolume, which a restart of the machine leaves. */
  hasImage(id: string, generation: number): Promise<boolean>;
  /** Bytes used in the upper; 0 when that cannot be told. */
  upperBytes(id: string, generation: number): Promise<number>;
  /** Atomic and durable, as a snapshot that was answered must be. */
  writeSnapshots(id: string, snapshots: readonly SnapshotRecord[]): Promise<void>;
  /** Where a snapshot's image lies, relative to the data directory. */
  snapshotImage(image: string): string;
  /** Images of all sandboxes' snapshots that are on the disk. */
  listSnapshotImages(): Promise<string[]>;
  /** Opens a file that was written under an image's name, and removes that name: the file goes when it is closed. */
  takeOutput(image: string): Promise<TakenOutput>;
  /** Idempotent. Returns the bytes that it took. */
  removeSnapshotImage(image: string): Promise<number>;
  /** What is known of an image without reading it; null where it is not there. */
  snapshotFacts(image: string): SnapshotImageFacts | null;
  /** Makes sure that an image is what it was when it was made, as far as is known. Throws `snapshot_damaged`. */
  checkSnapshotImage(image: string): Promise<void>;
  /** Has an image outlast a crash of the machine, where that is not done by what makes it. Throws `kernel`. */
  syncSnapshotImage(image: string): Promise<void>;
  /** Takes the digest of an image for later checks where there is none yet. Throws `snapshot_damaged`, `cancelled`. */
  sealSnapshotImage(image: string, signal: AbortSignal): Promise<void>;
}

export interface SnapshotImageFacts {
  /** its length */
  readonly bytes: number;
  /** that it takes on the disk */
  readonly allocatedBytes: number;
  /** 64 hexadecimal digits; null where it is not known yet */
  readonly sha256: string | null;
}

/** Forms in which layers are mounted. */
export type LayerFormat = "squashfs" | "erofs" | "subvolume";

/** What is mounted as a layer: a module's image, or a snapshot's. */
export interface LayerImage {
  readonly name: string;
  /** relative to the data directory */
  readonly image: string;
  readonly format: LayerFormat;
  /** changes whenever the file is another one */
  readonly identity: string;
}

/** A module's image as found on disk. */
export interface ModuleImage extends LayerImage {
  readonly format: "squashfs" | "erofs";
  /** how its programs are meant to be started */
  readonly defaults?: ImageDefaults;
  /** modules that a stack with this one must have */
  readonly requires?: readonly string[];
  /** modules that it must not have */
  readonly conflicts?: readonly string[];
}

export interface ModuleCatalog {
  /** Only an image that can be trusted. Throws `module_not_found`, `module_invalid`. */
  resolve(name: string): Promise<ModuleImage>;
  /** Names to use when a create names none. Throws `module_not_found` when there is no base. */
  defaultLayers(): Promise<readonly string[]>;
}

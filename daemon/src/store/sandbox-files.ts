import { mkdir, readFile, readdir, rm, rmdir, stat, statfs } from "node:fs/promises";
import { join } from "node:path";
import { SquashError } from "@squash/sdk/errors";
import type { ExecResult } from "@squash/sdk/protocol";
import type {
  SandboxRecord,
  SandboxStore,
  SnapshotImageFacts,
  SnapshotRecord,
  StoredSandbox,
  TakenOutput,
} from "../core/ports.js";
import { Disk } from "./disk.js";
import type { DiskJob } from "./disk-job.js";
import { sweepDrafts } from "./drafts.js";
import { btrfsMagic } from "./pool-image.js";
import { parseRecord } from "./record.js";
import { SnapshotFiles, type SubvolumePool } from "./snapshot-files.js";

/** newest results kept of each sandbox */
const maxLogs = 1000;
const folders = [
  { name: "upper.0", mode: 0o755 },
  { name: ".meta", mode: 0o700 },
  { name: ".meta/log", mode: 0o700 },
];

/** Sandboxes' directories below `<data dir>/sandboxes`. The daemon alone writes here; what sandboxes write lies in their uppers. */
export class SandboxFiles implements SandboxStore {
  readonly #root: string;
  readonly #dataDir: string;
  readonly #pool: SubvolumePool | null;
  readonly #disk = new Disk();
  readonly #makeImage: (path: string, sizeBytes: number) => Promise<void>;
  readonly #snapshots: SnapshotFiles;

  constructor(
    dataDir: string,
    options: {
      readonly makeImage: (path: string, sizeBytes: number) => Promise<void>;
      /** names this boot of the machine */
      readonly boot: string;
      /** where uppers are that are subvolumes; null for nowhere */
      readonly pool?: SubvolumePool | null;
    },
  ) {
    const { makeImage, boot, pool = null } = options;
    this.#root = join(dataDir, "sandboxes");
    this.#dataDir = dataDir;
    this.#pool = pool;
    this.#makeImage = makeImage;
    this.#snapshots = new SnapshotFiles(dataDir, { boot, pool });
  }

  upperPath(id: string, generation: number): string {
    return join(this.#root, id, upperName(generation));
  }

  imagePath(id: string, generation: number): string {
    return `${this.upperPath(id, generation)}.img`;
  }

  subvolumePath(id: string, generation: number): string {
    return `pool/${subvolumeName(id, generation)}`;
  }

  async upperGenerations(id: string): Promise<number[]> {
    const names = (await readdir(join(this.#root, id)).catch(ignoreMissing)) ?? [];
    return names.flatMap((name) => (upperExpression.test(name) ? [Number(name.slice("upper.".length))] : []));
  }

  async makeUpper(id: string, generation: number): Promise<void> {
    const path = this.upperPath(id, generation);
    // not with `recursive`, which says that something is missing where there is no room
    await mkdir(path, { mode: 0o755 }).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== "EEXIST") throw cannotWrite(path, error);
    });
  }

  async removeUpper(id: string, generation: number): Promise<void> {
    await this.#removeSubvolume(id, generation);
    await rmdir(this.upperPath(id, generation)).catch(ignoreMissing);
    await rm(this.imagePath(id, generation), { force: true });
  }

  /** Fails when there is one: what an earlier sandbox left must never be inherited. */
  async makeDirectories(id: string): Promise<void> {
    await this.#write({ kind: "makeTree", path: join(this.#root, id), mode: 0o700, folders });
  }

  async makeImage(id: string, generation: number, sizeBytes: number): Promise<void> {
    await this.#makeImage(this.imagePath(id, generation), sizeBytes);
  }

  async removeDirectories(id: string): Promise<void> {
    const path = join(this.#root, id);
    try {
      const generations = await this.upperGenerations(id);
      for (const generation of generations) await this.#removeSubvolume(id, generation);
      const emptyFirst = generations.map(upperName);
      await this.#disk.run({ kind: "removeTree", path, emptyFirst });
    } catch (cause) {
      throw new SquashError("kernel", `Cannot remove "${path}": ${(cause as Error).message}`, { cause });
    }
  }

  /** Safe from a crash of squashd at once, from one of the machine within seconds. */
  async writeRecord(record: SandboxRecord): Promise<void> {
    const content = JSON.stringify(record, null, 2);
    await this.#write({ kind: "replace", path: this.#recordPath(record.id), content, mode: 0o600 });
  }

  async removeRecord(id: string): Promise<void> {
    await this.#write({ kind: "unlink", path: this.#recordPath(id) });
  }

  async appendLog(id: string, result: ExecResult): Promise<void> {
    const folder = join(this.#root, id, ".meta", "log");
    const path = join(folder, logName(result.seq));
    const outdated = result.seq > maxLogs ? { unlink: join(folder, logName(result.seq - maxLogs)) } : {};
    await this.#write({ kind: "write", path, content: JSON.stringify(result), mode: 0o600, ...outdated });
  }

  async readLog(id: string): Promise<ExecResult[]> {
    const folder = join(this.#root, id, ".meta", "log");
    const results: ExecResult[] = [];
    for (const name of await logNames(folder)) {
      const text = await readFile(join(folder, name), "utf8").catch(() => ""); // pruned meanwhile
      const result = parseJson(text) as ExecResult | undefined;
      if (typeof result?.seq === "number") results.push(result); // one that a crash cut off is skipped
    }
    return results;
  }

  async list(): Promise<StoredSandbox[]> {
    await mkdir(this.#root, { recursive: true, mode: 0o700 });
    const entries = await readdir(this.#root, { withFileTypes: true });
    return Promise.all(entries.filter((entry) => entry.isDirectory()).map((entry) => this.#stored(entry.name)));
  }

  async isUpperMounted(id: string, generation: number): Promise<boolean> {
    try {
      const [upper, home] = await Promise.all([stat(this.upperPath(id, generation)), stat(join(this.#root, id))]);
      return upper.dev !== home.dev;
    } catch (error) {
      ignoreMissing(error as NodeJS.ErrnoException);
      return false;
    }
  }

  async hasImage(id: string, generation: number): Promise<boolean> {
    if ((await stat(this.imagePath(id, generation)).catch(ignoreMissing))?.isFile() === true) return true;
    return this.#pool !== null && (await this.#hasSubvolume(id, generation));
  }

  /** Removes what a squashd that was killed had begun to write beside records, lists and images. Nothing may write meanwhile. */
  async sweepDrafts(): Promise<void> {
    const homes = ((await readdir(this.#root).catch(ignoreMissing)) ?? []).map((id) => join(this.#root, id));
    await Promise.all(homes.flatMap((home) => [sweepDrafts(home), sweepDrafts(join(home, ".meta"))]));
  }

  /** Removes subvolumes of uppers that have no mount point: a crash of the machine may lose one sooner than the other. Returns their names. */
  async sweepSubvolumes(): Promise<string[]> {
    if (this.#pool === null) return [];
    const swept: string[] = [];
    for (const name of await readdir(join(this.#dataDir, "pool/u"))) {
      const [, id = "", generation = ""] = /^(.+)\.(\d{1,9})$/.exec(name) ?? [];
      if (id !== "" && (await stat(this.upperPath(id, Number(generation))).catch(ignoreMissing)) !== undefined)
        continue;
      await this.#pool.remove(`u/${name}`);
      swept.push(name);
    }
    return swept;
  }

  #hasSubvolume(id: string, generation: number): Promise<boolean> {
    return stat(join(this.#dataDir, this.subvolumePath(id, generation))).then(
      (found) => found.isDirectory(),
      (error: NodeJS.ErrnoException) => {
        ignoreMissing(error);
        return false;
      },
    );
  }

  /** Never one that is mounted, as it may be in use. */
  async #removeSubvolume(id: string, generation: number): Promise<void> {
    if (this.#pool === null || !(await this.#hasSubvolume(id, generation))) return;
    if (await this.isUpperMounted(id, generation))
      throw new SquashError("kernel", `Cannot remove the files of "${id}": they are mounted`);
    await this.#pool.remove(subvolumeName(id, generation));
  }

  async upperBytes(id: string, generation: number): Promise<number> {
    const [isMounted, found] = await Promise.all([
      this.isUpperMounted(id, generation),
      statfs(this.upperPath(id, generation)).catch(ignoreMissing),
    ]);
    if (!isMounted || found === undefined) return 0;
    const { blocks, bfree, bsize, type } = found;
    if (type === btrfsMagic) return (await this.#pool?.bytes(subvolumeName(id, generation))) ?? 0;
    return (blocks - bfree) * bsize;
  }

  async writeSnapshots(id: string, snapshots: readonly SnapshotRecord[]): Promise<void> {
    const path = this.#snapshotsPath(id);
    await this.#snapshots.write(path, snapshots).catch((error: NodeJS.ErrnoException) => {
      throw cannotWrite(path, error);
    });
  }

  snapshotImage(image: string): string {
    return this.#snapshots.image(image);
  }

  listSnapshotImages(): Promise<string[]> {
    return this.#snapshots.listImages();
  }

  takeOutput(image: string): Promise<TakenOutput> {
    return this.#snapshots.take(image);
  }

  removeSnapshotImage(image: string): Promise<number> {
    return this.#snapshots.removeImage(image);
  }

  snapshotFacts(image: string): SnapshotImageFacts | null {
    return this.#snapshots.facts(image);
  }

  checkSnapshotImage(image: string): Promise<void> {
    return this.#snapshots.check(image);
  }

  async syncSnapshotImage(image: string): Promise<void> {
    await this.#snapshots.sync(image).catch((error: NodeJS.ErrnoException) => {
      throw cannotWrite(this.snapshotImage(image), error);
    });
  }

  sealSnapshotImage(image: string, signal: AbortSignal): Promise<void> {
    return this.#snapshots.seal(image, signal);
  }

  /** Throws `kernel` with what the disk said. */
  async #write(job: DiskJob): Promise<void> {
    await this.#disk.run(job).catch((error: NodeJS.ErrnoException) => {
      throw cannotWrite(job.path, error);
    });
  }

  async #stored(id: string): Promise<StoredSandbox> {
    const text = await readFile(this.#recordPath(id), "utf8").catch(ignoreMissing);
    const last = (await logNames(join(this.#root, id, ".meta", "log"))).at(-1);
    const lastSeq = last === undefined ? 0 : parseInt(last, 10);
    try {
      const snapshots = await this.#snapshots.read(this.#snapshotsPath(id));
      return { id, record: text === undefined ? null : parseRecord(id, text), damage: null, lastSeq, snapshots };
    } catch (error) {
      return { id, record: null, damage: (error as Error).message, lastSeq, snapshots: [] };
    }
  }

  #snapshotsPath(id: string): string {
    return join(this.#root, id, ".meta", "snapshots.json");
  }

  #recordPath(id: string): string {
    return join(this.#root, id, ".meta", "sandbox.json");
  }
}

function cannotWrite(path: string, cause: NodeJS.ErrnoException): SquashError {
  const details = { errno: cause.code ?? "unknown" };
  return new SquashError("kernel", `Cannot write "${path}": ${cause.message}`, { cause, details });
}

const upperExpression = /^upper\.\d{1,9}$/;

/** In the pool. */
function subvolumeName(id: string, generation: number): string {
  return `u/${id}.${generation}`;
}

function upperName(generation: number): string {
  return `upper.${generation}`;
}

function logName(seq: number): string {
  return `${String(seq).padStart(4, "0")}.json`;
}

/** Names of the results in a log, in the order of their numbers. */
async function logNames(folder: string): Promise<string[]> {
  const names = (await readdir(folder).catch(ignoreMissing)) ?? [];
  return names.filter((name) => /^\d{4,}\.json$/.test(name)).toSorted((a, b) => parseInt(a, 10) - parseInt(b, 10));
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined; // cut off by a crash
  }
}

function ignoreMissing(error: NodeJS.ErrnoException): undefined {
  if (error.code !== "ENOENT") throw error;
  return undefined;
}

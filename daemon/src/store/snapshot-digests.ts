import { createHash } from "node:crypto";
import { constants, lstatSync, readFileSync, type BigIntStats } from "node:fs";
import { lstat, open, rm, type FileHandle } from "node:fs/promises";
import { SquashError } from "@squash/sdk/errors";
import { pause } from "../core/pause.js";
import { writeAtomically } from "./atomic-file.js";

/** small, so that what else there is to do comes in between */
const chunkBytes = 262_144;
/** after so much of an image that nobody waits for there is a rest */
const restEveryBytes = 4_194_304;
const restMs = 5;
const superblockAt = 1_024;

/** What is kept of an image beside it. */
interface Seal {
  readonly version: 1;
  readonly size: number;
  /** 64 hexadecimal digits */
  readonly sha256: string;
  /** of the file whose content was found to be this: device, inode, size, times */
  readonly identity: string;
  /** the boot of the machine in which it was */
  readonly boot: string;
}

/**
 * Digests of snapshots' images, kept beside each as `<image>.seal`. An image is read through when it is sealed, and again when it is to be
 * mounted and its file is another one, or the machine was restarted since: only then may the disk hold what nobody has written.
 */
export class SnapshotDigests {
  readonly #boot: string;
  readonly #known = new Map<string, Seal>();
  readonly #checking = new Map<string, Promise<void>>();

  constructor(boot: string) {
    this.#boot = boot;
  }

  /** The digest of the image at `path`, where it is known. */
  known(path: string): string | null {
    return (this.#known.get(path) ?? this.#take(path, readNow(sealPath(path))))?.sha256 ?? null;
  }

  /** Throws `snapshot_damaged` where the image is missing, cut off, or not what was sealed. Who asks meanwhile waits for the same reading. */
  async check(path: string): Promise<void> {
    const stat = lstatSync(path, { bigint: true, throwIfNoEntry: false });
    const seal = this.#known.get(path) ?? this.#take(path, readNow(sealPath(path)));
    if (stat?.isFile() !== true) throw damaged(path, "it is missing");
    if (seal === null) return checkSuperblock(path);
    if (seal.size !== Number(stat.size)) throw damaged(path, `it has ${stat.size} bytes, it had ${seal.size}`);
    if (seal.boot === this.#boot && seal.identity === identityOf(stat)) return;
    const running = this.#checking.get(path) ?? this.#compare(path, seal).finally(() => this.#checking.delete(path));
    this.#checking.set(path, running);
    return running;
  }

  /** Takes the digest where there is none yet. Throws `snapshot_damaged` for what is cut off, and the signal's reason. */
  async seal(path: string, signal: AbortSignal): Promise<void> {
    if (this.known(path) !== null) return;
    await checkSuperblock(path);
    const found = await read(path, { signal, restMs });
    await this.#keep(path, found);
  }

  async remove(path: string): Promise<void> {
    this.#known.delete(path);
    await rm(sealPath(path), { force: true });
  }

  async #compare(path: string, seal: Seal): Promise<void> {
    const found = await read(path, {});
    if (found.sha256 !== seal.sha256)
      throw damaged(path, `its sha-256 is ${found.sha256}, it was ${seal.sha256} when it was made`);
    // without it the image is read again at the next start, and nothing else
    await this.#keep(path, found).catch(() => undefined);
  }

  async #keep(path: string, found: Pick<Seal, "size" | "sha256" | "identity">): Promise<void> {
    const seal: Seal = { version: 1, ...found, boot: this.#boot };
    await writeAtomically(sealPath(path), `${JSON.stringify(seal)}\n`, { durable: true });
    this.#known.set(path, seal);
  }

  #take(path: string, seal: Seal | null): Seal | null {
    if (seal !== null) this.#known.set(path, seal);
    return seal;
  }
}

function sealPath(path: string): string {
  return path.replace(/\.erofs$/, ".seal");
}

/** null where there is none; what is no seal counts as none. A few hundred bytes: waits for the disk only when the kernel does not know them. */
function readNow(path: string): Seal | null {
  try {
    const value = JSON.parse(readFileSync(path, "utf8")) as Partial<Seal> | null;
    const { version, size, sha256, identity, boot } = value ?? {};
    const isSeal = version === 1 && typeof size === "number" && /^[0-9a-f]{64}$/.test(sha256 ?? "");
    return isSeal && typeof identity === "string" && typeof boot === "string" ? (value as Seal) : null;
  } catch {
    return null; // not made yet, or cut off: the image is sealed anew
  }
}

/** Reads an image through; resting in between, where it is for the background. */
async function read(
  path: string,
  options: { readonly signal?: AbortSignal; readonly restMs?: number },
): Promise<Pick<Seal, "size" | "sha256" | "identity">> {
  await using file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW);
  const before = await file.stat({ bigint: true });
  const buffer = Buffer.alloc(chunkBytes);
  const hash = createHash("sha256");
  let size = 0;
  for (;;) {
    options.signal?.throwIfAborted();
    const { bytesRead } = await readAt(file, buffer, { path, at: size });
    if (bytesRead === 0) break;
    hash.update(buffer.subarray(0, bytesRead));
    size += bytesRead;
    if (options.restMs !== undefined && size % restEveryBytes < bytesRead) await pause(options.restMs, options.signal);
  }
  const after = await lstat(path, { bigint: true });
  if (identityOf(before) !== identityOf(after)) throw damaged(path, "it changed while it was read");
  return { size, sha256: hash.digest("hex"), identity: identityOf(after) };
}

/** A disk that cannot read it back is damage as well. */
async function readAt(
  file: FileHandle,
  buffer: Buffer,
  { path, at }: { readonly path: string; readonly at: number },
): Promise<{ bytesRead: number }> {
  try {
    return await file.read(buffer, 0, buffer.length, at);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== "EIO") throw cause;
    throw damaged(path, "it cannot be read from the disk", cause);
  }
}

/** What can be said without a digest: the image is one, and as long as its superblock says. Source: fs/erofs/erofs_fs.h */
async function checkSuperblock(path: string): Promise<void> {
  await using file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW).catch(
    (error: NodeJS.ErrnoException) => {
      if (error.code === "ENOENT") throw damaged(path, "it is missing");
      throw error;
    },
  );
  const { size } = await file.stat();
  const head = Buffer.alloc(128);
  const { bytesRead } = await readAt(file, head, { path, at: superblockAt });
  if (bytesRead < head.length || head.readUInt32LE(0) !== 0xe0f5e1e2) throw damaged(path, "it is no erofs image");
  const blocks = head.readUInt32LE(36) * 2 ** head.readUInt8(12);
  if (blocks > size) throw damaged(path, `it is cut off: its superblock says ${blocks} bytes, there are ${size}`);
}

function identityOf(stat: BigIntStats): string {
  return [stat.dev, stat.ino, stat.size, stat.mtimeNs, stat.ctimeNs].join("-");
}

function damaged(path: string, what: string, cause?: unknown): SquashError {
  const hint = "bring the file back as it was, or use another snapshot";
  return new SquashError("snapshot_damaged", `Cannot use snapshot image "${path}": ${what}; ${hint}`, {
    cause,
    details: { image: path },
  });
}

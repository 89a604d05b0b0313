import { execFile } from "node:child_process";
import { mkdir, open, rename, rm, type FileHandle } from "node:fs/promises";
import { dirname } from "node:path";
import { promisify } from "node:util";
import { SquashError } from "@squash/sdk/errors";

const blockSize = 64 * 1024;
const deadlineMs = 60_000;
const run = promisify(execFile);

interface Block {
  readonly offset: number;
  readonly bytes: Buffer;
}

/**
 * Makes empty ext4 images without a process for each: one is formatted, the blocks that are not all zeroes are remembered (some 100 KiB),
 * and every further image is a sparse file with those blocks. Images share their UUID, which nothing here mounts by.
 */
export class Ext4Template {
  readonly #scratch: string;
  readonly #bySize = new Map<number, Promise<readonly Block[]>>();

  /** `scratch` is a file that may be made and removed, on the filesystem where the images will be. */
  constructor(scratch: string) {
    this.#scratch = scratch;
  }

  /** Makes an image at `path`; a crash leaves none or a whole one. Throws `SquashError`. */
  async make(path: string, sizeBytes: number): Promise<void> {
    const blocks = await this.#blocks(sizeBytes);
    const temporary = `${path}.tmp`;
    try {
      const file = await open(temporary, "wx", 0o600);
      try {
        await file.truncate(sizeBytes);
        for (const { offset, bytes } of blocks) await file.write(bytes, 0, bytes.length, offset);
        await file.sync();
      } finally {
        await file.close();
      }
      await rename(temporary, path);
    } catch (cause) {
      await rm(temporary, { force: true });
      throw new SquashError("kernel", `Cannot make upper image "${path}": ${(cause as Error).message}`, { cause });
    }
  }

  #blocks(sizeBytes: number): Promise<readonly Block[]> {
    const known = this.#bySize.get(sizeBytes);
    if (known !== undefined) return known;
    const blocks = this.#format(sizeBytes);
    this.#bySize.set(sizeBytes, blocks);
    blocks.catch(() => this.#bySize.delete(sizeBytes)); // the next create tries again
    return blocks;
  }

  async #format(sizeBytes: number): Promise<readonly Block[]> {
    const path = `${this.#scratch}-${sizeBytes}`;
    try {
      await mkdir(dirname(path), { recursive: true, mode: 0o700 });
      await using file = await open(path, "w+", 0o600);
      await file.truncate(sizeBytes);
      const lazily = "lazy_itable_init=1,lazy_journal_init=1,nodiscard,root_owner=0:0";
      await run("mkfs.ext4", ["-q", "-F", "-m", "0", "-E", lazily, path], {
        timeout: deadlineMs,
        env: { PATH: "/usr/sbin:/sbin:/usr/bin:/bin", LC_ALL: "C" },
      });
      return await usedBlocks(file, sizeBytes);
    } catch (cause) {
      throw new SquashError(
        "kernel",
        `Cannot format an ext4 image: ${(cause as Error).message}; is e2fsprogs installed?`,
        { cause },
      );
    } finally {
      await rm(path, { force: true });
    }
  }
}

async function usedBlocks(file: FileHandle, sizeBytes: number): Promise<readonly Block[]> {
  const blocks: Block[] = [];
  const zeroes = Buffer.alloc(blockSize);
  for (let offset = 0; offset < sizeBytes; offset += blockSize) {
    const { bytesRead, buffer } = await file.read(Buffer.alloc(blockSize), 0, blockSize, offset);
    const bytes = buffer.subarray(0, bytesRead);
    if (bytes.compare(zeroes, 0, bytesRead) !== 0) blocks.push({ offset, bytes });
  }
  return blocks;
}

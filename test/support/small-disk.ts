import { execFileSync } from "node:child_process";
import {
  closeSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  rmSync,
  statfsSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { dirname, join } from "node:path";

const chunk = Buffer.alloc(65_536, 1);
const smallest = Buffer.alloc(512, 1);
const maxRounds = 10;

/** A small ext4 of its own, mounted at a directory, which can be filled to the last byte. */
export class SmallDisk implements Disposable {
  readonly path: string;
  readonly #image: string;
  readonly #filler: string;

  /** The image lies beside the directory. */
  constructor(path: string, mebibytes: number) {
    this.path = path;
    this.#image = `${path}.disk`;
    this.#filler = join(path, "filler");
    mkdirSync(dirname(path), { recursive: true });
    mkdirSync(path, { recursive: true });
    closeSync(openSync(this.#image, "w"));
    truncateSync(this.#image, mebibytes * 1_048_576);
    execFileSync("mkfs.ext4", ["-q", "-F", "-m", "0", "-b", "4096", this.#image], { stdio: "ignore" });
    this.mount();
  }

  /** Mounts it where it is not mounted any more. */
  mount(): void {
    execFileSync("mount", ["-o", "loop", this.#image, this.path]);
  }

  /** From now on everything fails with EIO, as a disk that is gone does. Source: Linux fs/ext4/ioctl.c, EXT4_IOC_SHUTDOWN */
  fail(): void {
    this.#sync();
    const script = 'open(my $f, "<", $ARGV[0]) or die; my $how = pack("L", 2); ioctl($f, 0x8004587d, $how) or die $!';
    execFileSync("perl", ["-e", script, this.path]);
  }

  /** Leaves so many bytes, or a few less. */
  fill(left: number): void {
    this.clear();
    const file = openSync(this.#filler, "w");
    let size = 0;
    try {
      for (const bytes of [chunk, smallest]) {
        for (;;) {
          try {
            const written = writeSync(file, bytes);
            size += written;
            if (written < bytes.length) break;
          } catch {
            break; // it is full
          }
        }
      }
      fsyncSync(file);
    } finally {
      closeSync(file);
    }
    this.#fillBlocks();
    truncateSync(this.#filler, Math.max(0, size - left));
  }

  /**
   * A block may be left that one more of the large file's would need for itself: small files have it. What ext4 reserves for a file's own
   * blocks it gives back only when the file is written to the disk, so that there may be one more then.
   */
  #fillBlocks(): void {
    for (let round = 0, number = 0; round < maxRounds && (round === 0 || this.free > 0); round++) {
      try {
        for (; ; number++) writeFileSync(`${this.#filler}.${number}`, smallest);
      } catch {
        this.#sync(); // it is full
      }
    }
  }

  #sync(): void {
    execFileSync("sync", ["-f", this.path]);
  }

  clear(): void {
    for (const name of readdirSync(this.path)) if (/^filler(\.|$)/.test(name)) rmSync(join(this.path, name));
    this.#sync();
  }

  get free(): number {
    const { bavail, bsize } = statfsSync(this.path);
    return bavail * bsize;
  }

  [Symbol.dispose](): void {
    execFileSync("umount", [this.path]);
    rmSync(this.#image);
  }
}

import { execFileSync } from "node:child_process";
import { appendFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { repositoryRoot } from "../test/support/root.js";
import { summarize } from "./stats.js";

const kinds = ["erofs", "squashfs", "ext4"] as const;
const fileMiB = 384;
const reads = 2000;
const modules = 300;

/** Milliseconds for each kind of image, medians. */
export type ColdTimes = Readonly<Record<(typeof kinds)[number], number>>;

/**
 * Reads of images that nothing is in memory of: each round mounts an image anew and makes the kernel forget its file, with posix_fadvise, and
 * nothing else of the machine. erofs is lz4 as modules are, without a loop device where the kernel can; squashfs is zstd; ext4 is plain.
 */
export class ColdBench {
  readonly #scratch: string;
  readonly #program: string;

  constructor(scratch: string) {
    this.#scratch = scratch;
    this.#program = join(scratch, "cold");
    execFileSync("musl-gcc", ["-static", "-O2", "-o", this.#program, join(repositoryRoot, "bench/cold.c")]);
    const root = join(scratch, "tree");
    mkdirSync(join(root, "program"), { recursive: true });
    this.#fill(root);
    const quiet = { stdio: "ignore" } as const;
    execFileSync("mkfs.erofs", ["-zlz4hc", "-C4096", this.#image("erofs"), root], quiet);
    execFileSync(
      "mksquashfs",
      [
        root,
        this.#image("squashfs"),
        "-noappend",
        "-quiet",
        "-no-progress",
        "-comp",
        "zstd",
        "-Xcompression-level",
        "3",
      ],
      quiet,
    );
    execFileSync("mkfs.ext4", ["-q", "-F", "-d", root, this.#image("ext4"), `${fileMiB + 128}M`], quiet);
    rmSync(root, { recursive: true });
  }

  /** 2,000 reads of 4 KiB at random. */
  reads(rounds: number): ColdTimes {
    return this.#each(rounds, (at) => Number(this.#run("read", join(at, "file"), String(reads))) / 1000);
  }

  /** A Python program with 300 modules, from its start to its end. */
  imports(rounds: number): ColdTimes {
    return this.#each(rounds, (at) => {
      const start = performance.now();
      execFileSync("/usr/bin/python3", [
        "-B",
        "-S",
        "-E",
        "-c",
        `import sys; sys.path.insert(0, "${at}/program"); import main`,
      ]);
      return performance.now() - start;
    });
  }

  #each(rounds: number, measure: (mountPoint: string) => number): ColdTimes {
    const times = { erofs: [] as number[], squashfs: [] as number[], ext4: [] as number[] };
    for (let round = 0; round < rounds; round++)
      for (const kind of kinds) times[kind].push(this.#mounted(kind, measure));
    const median = (kind: (typeof kinds)[number]): number => summarize(times[kind]).p50;
    return { erofs: median("erofs"), squashfs: median("squashfs"), ext4: median("ext4") };
  }

  #mounted(kind: (typeof kinds)[number], measure: (mountPoint: string) => number): number {
    const at = join(this.#scratch, "mounted");
    mkdirSync(at, { recursive: true });
    this.#run("drop", this.#image(kind));
    try {
      if (kind !== "erofs") throw new Error("it needs a loop device");
      this.#run("mount", this.#image(kind), at);
    } catch {
      execFileSync("mount", ["-t", kind, "-o", "loop,ro", this.#image(kind), at]); // also kernels before 6.12
    }
    try {
      return measure(at);
    } finally {
      execFileSync("umount", [at]);
    }
  }

  /** Programs are what modules mostly hold: the start of Node's own, again and again, and Python files with a comment and a table of its text. */
  #fill(root: string): void {
    const data = readFileSync(process.execPath).subarray(0, 64 * 1_048_576);
    for (let size = 0; size < fileMiB * 1_048_576; size += data.length) appendFileSync(join(root, "file"), data);
    const names = Array.from({ length: modules }, (_, at) => `part${at}`);
    for (const [at, name] of names.entries()) {
      const text = data.subarray(at * 8192, at * 8192 + 4096).toString("base64");
      writeFileSync(join(root, "program", `${name}.py`), `def f():\n    return 1\n\n# ${text}\ntable = "${text}"\n`);
    }
    writeFileSync(join(root, "program/main.py"), names.map((name) => `import ${name}\n`).join(""));
  }

  #image(kind: (typeof kinds)[number]): string {
    return join(this.#scratch, `image.${kind}`);
  }

  #run(...args: readonly string[]): string {
    return execFileSync(this.#program, args, { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] });
  }
}

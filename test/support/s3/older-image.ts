import { execFileSync } from "node:child_process";
import { mkdtempSync, mkdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** How older daemons packed snapshots where the kernel could not read zstd, and where it could. */
const packings = {
  gzip: ["-comp", "gzip", "-b", "256K"],
  zstd: ["-comp", "zstd", "-Xcompression-level", "3", "-b", "128K"],
} as const;

interface OlderImageOptions {
  /** @default "gzip" */
  readonly packing?: keyof typeof packings;
  /** further arguments of mksquashfs */
  readonly more?: readonly string[];
}

/** Packs what a shell script puts into an empty directory, as the host's root, into the squashfs image that an older daemon would have sent. */
export function olderImage(script: string, { packing = "gzip", more = [] }: OlderImageOptions = {}): Buffer {
  const home = mkdtempSync(join(tmpdir(), "sqt-older-"));
  try {
    const [upper, image] = [join(home, "upper"), join(home, "image")];
    mkdirSync(upper, { mode: 0o755 });
    execFileSync("sh", ["-euc", script], { cwd: upper, stdio: ["ignore", "ignore", "inherit"] });
    const argv = [upper, image, "-noappend", "-quiet", "-no-progress", ...packings[packing], ...more];
    execFileSync("mksquashfs", argv, { stdio: "ignore" });
    return readFileSync(image);
  } finally {
    rmSync(home, { recursive: true, force: true });
  }
}

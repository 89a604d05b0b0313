import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";

const probes = {
  root: () => process.getuid?.() === 0,
  btrfs: () =>
    spawnSync("mkfs.btrfs", ["--version"]).status === 0 &&
    (/\tbtrfs$/m.test(readFileSync("/proc/filesystems", "utf8")) || spawnSync("modprobe", ["btrfs"]).status === 0),
  nft: () => spawnSync("nft", ["--version"]).status === 0,
  go: () => spawnSync("go", ["version"]).status === 0,
  java: () => ["java", "ecj"].every((name) => spawnSync(name, ["-version"]).status === 0),
  radosgw: () =>
    ["radosgw", "ceph-mon", "ceph-osd", "setpriv"].every((name) => spawnSync(name, ["--version"]).status === 0),
} satisfies Record<string, () => boolean>;

/** True when this machine cannot run such tests. With `TESTS_MUST_RUN=1`, as in CI, throws instead, so that they are not skipped. */
export function lacks(...needs: readonly (keyof typeof probes)[]): boolean {
  const missing = needs.filter((need) => !probes[need]());
  if (missing.length > 0 && process.env["TESTS_MUST_RUN"] === "1") {
    throw new Error(
      `Cannot run these tests, and TESTS_MUST_RUN=1 forbids to skip them: the machine lacks ${missing.join(", ")}`,
    );
  }
  if (missing.length > 0) console.warn(`skipped, as this machine lacks: ${missing.join(", ")}`);
  return missing.length > 0;
}

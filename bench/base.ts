import { execFileSync } from "node:child_process";
import { copyFileSync, mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { trustByHand } from "../test/support/modules.js";

const source = "int main(void) { return 0; }\n";

/** Fills `root` with BusyBox and `true-static`, the smallest program there is, and packs it as `000-base-bench`, erofs and squashfs. */
export function makeBenchBase(root: string, modules: string): void {
  for (const name of ["bin", "etc", "root", "tmp", "proc", "sys", "dev", "run", "usr/bin", "var/tmp"]) {
    mkdirSync(join(root, name), { recursive: true });
  }
  copyFileSync("/bin/busybox", join(root, "bin/busybox"));
  for (const applet of ["sh", "true", "echo", "cat", "ls"]) symlinkSync("busybox", join(root, "bin", applet));
  writeFileSync(join(root, "etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n");
  writeFileSync(join(root, "etc/group"), "root:x:0:\n");
  execFileSync("musl-gcc", ["-static", "-O2", "-s", "-x", "c", "-o", join(root, "bin/true-static"), "-"], {
    input: source,
  });
  mkdirSync(modules, { recursive: true });
  const image = join(modules, "000-base-bench");
  const quiet = { stdio: "ignore" } as const;
  execFileSync(
    "mksquashfs",
    [root, `${image}.squashfs`, "-noappend", "-quiet", "-no-progress", "-all-root", "-comp", "zstd"],
    quiet,
  );
  execFileSync("mkfs.erofs", ["-zlz4hc", "--all-root", `${image}.erofs`, root], quiet);
  trustByHand(modules, "000-base-bench");
}

import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { release, tmpdir } from "node:os";
import { join } from "node:path";

/** Whether files of this directory may have attributes of users. Throws where the kernel has them everywhere: tmpfs does since Linux 6.6. */
export function hasUserAttributes(folder = tmpdir()): boolean {
  const probe = mkdtempSync(join(folder, "attributes-"));
  try {
    const { status } = spawnSync("setfattr", ["-n", "user.probe", "-v", "1", probe]);
    if (status === 0) return true;
    const [major = 0, minor = 0] = release()
      .split(".")
      .map((part) => parseInt(part, 10));
    if (major > 6 || (major === 6 && minor >= 6))
      throw new Error(`files in "${folder}" cannot have attributes of users`);
    return false;
  } finally {
    rmSync(probe, { recursive: true });
  }
}

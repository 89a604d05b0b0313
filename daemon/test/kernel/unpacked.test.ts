import { execFileSync } from "node:child_process";
import { mkdirSync, rmSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { lacks } from "../../../test/support/needs.js";
import { hasUserAttributes } from "../../../test/support/user-attributes.js";
import { useKernel } from "./test-kernel.js";

function sh(command: string): string {
  return execFileSync("sh", ["-ec", command], { encoding: "utf8" });
}

describe.skipIf(lacks("root"))("a capture of what was unpacked", () => {
  const machine = useKernel();
  const image = "captured.erofs";

  it("takes what a confined tool has unpacked, with marks that anybody may give, and goes nowhere else", async () => {
    const { kernel } = machine;
    const first = 2_415_919_104;
    const tree = join(machine.dataDir, "unpacked");
    const unpacked = (path: string) => ({ kind: "unpacked", path }) as const;
    mkdirSync(tree);
    sh(`cd '${tree}'; mkdir opaque hides plain; mknod hides/gone c 0 0; echo x >own; echo x >other; ln -s /etc away
      chown ${first + 1000}:${first + 2000} own; chown 5:5 other; chown ${first}:${first} . opaque hides plain away`);
    const hasAttributes = hasUserAttributes();
    if (hasAttributes)
      sh(`cd '${tree}'; setfattr -n user.overlay.opaque -v y opaque; setfattr -n user.overlay.origin -v z opaque
        setfattr -n user.fuseoverlayfs.opaque -v y hides; setfattr -n user.note -v kept plain`);
    await kernel.capture(image, [unpacked("unpacked")]);
    await kernel.mountLayer("captured", image, "erofs");
    try {
      const layer = `/proc/${await machine.hostPid()}/root/l/captured`;
      expect(sh(`cd '${layer}'; stat -c '%n %F %u:%g %t:%T' own other plain hides/gone away`)).toBe(
        "own regular file 1000:2000 0:0\nother regular file 65534:65534 0:0\nplain directory 0:0 0:0\n" +
          "hides/gone character special file 0:0 0:0\naway symbolic link 0:0 0:0\n",
      );
      const attributes = sh(`cd '${layer}'; getfattr -d -m - opaque hides plain 2>/dev/null`);
      const hiding = ["# file: hides", 'trusted.overlay.opaque="y"', 'trusted.overlay.origin=""'];
      const marked = ["# file: opaque", 'trusted.overlay.opaque="y"', ...hiding, "# file: plain", 'user.note="kept"'];
      const lines = attributes.split(/\n+/).filter((line) => line !== "");
      if (hasAttributes) expect(lines).toEqual(marked);
      else expect(lines.filter((line) => /user|opaque"/.test(line))).toEqual([]);
    } finally {
      await kernel.unmountLayer("captured");
      rmSync(join(machine.dataDir, image));
    }
    for (const name of hasAttributes ? ["redirect", "metacopy"] : []) {
      sh(`cd '${tree}'; setfattr -n user.overlay.${name} -v /etc plain`);
      const refused = kernel.capture(image, [unpacked("unpacked")]);
      await expect(refused).rejects.toMatchObject({ details: { errno: "EXDEV" } });
      rmSync(join(machine.dataDir, image));
      sh(`cd '${tree}'; setfattr -x user.overlay.${name} plain`);
    }
    symlinkSync("/etc", join(machine.dataDir, "link"));
    for (const path of ["link", "nowhere"]) {
      await expect(kernel.capture(image, [unpacked(path)])).rejects.toThrow(/open/);
      rmSync(join(machine.dataDir, image), { force: true });
    }
    for (const roots of [[unpacked("../x")], [unpacked("/etc")], [unpacked("")], [unpacked("a"), unpacked("b")]])
      await expect(kernel.capture(image, roots)).rejects.toThrow(/understand/);
  });
});

import { execFileSync } from "node:child_process";
import { chmodSync, existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { release } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { mappableFormats } from "../../src/kernel/image-formats.js";
import { lacks } from "../../../test/support/needs.js";
import { usableFormat, useKernel } from "./test-kernel.js";
import { mountBase, TestSandbox, unmountBase } from "./test-sandbox.js";

/** Puts files with a content, and takes names out of what lies below, as overlayfs does: by devices 0/0. */
function tree(files: Readonly<Record<string, string>>, whiteouts: readonly string[] = []): (root: string) => void {
  return (root) => {
    chmodSync(root, 0o755);
    mkdirSync(join(root, "stack"));
    for (const [name, content] of Object.entries(files)) writeFileSync(join(root, "stack", name), content);
    for (const name of whiteouts) execFileSync("mknod", [join(root, "stack", name), "c", "0", "0"]);
  };
}

describe.skipIf(lacks("root"))("a root", () => {
  const machine = useKernel();
  let base: string;
  const layers = ["top: layer", "middle, layer", "low layer"];

  beforeAll(async () => {
    base = await mountBase(machine);
    const trees = [
      tree({ all: "top", two: "top" }),
      tree({ all: "middle", two: "middle", three: "middle", gone: "middle, never seen" }, ["lost"]),
      tree({ all: "low", three: "low", lost: "low", alone: "low" }),
    ];
    for (const [index, key] of layers.entries()) {
      const image = machine.pack(`layer${index}`, usableFormat, trees[index] ?? tree({}));
      await machine.kernel.mountLayer(key, image, usableFormat);
    }
    const cover = machine.pack("cover", usableFormat, tree({}, ["gone"]));
    await machine.kernel.mountLayer("cover", cover, usableFormat);
  });
  afterAll(async () => {
    for (const key of [...layers, "cover"]) await machine.kernel.unmountLayer(key);
    await unmountBase(machine);
  });

  it("shows the topmost layer's files, and not what a layer takes out", async () => {
    await using sandbox = await TestSandbox.make(machine, 0, { layers: ["cover", ...layers, base] });
    expect(await sandbox.print("cd /stack; ls; head -n 1 all two three alone | tr -d '\\n'; test ! -e lost")).toBe(
      "all\nalone\nthree\ntwo\n==> all <==top==> two <==top==> three <==middle==> alone <==low",
    );
    expect(await sandbox.print("stat -c '%u:%g' /stack/all /bin/busybox /; id -u")).toBe("0:0\n0:0\n0:0\n0\n");
  });

  it("keeps the order that was asked for", async () => {
    await using sandbox = await TestSandbox.make(machine, 1, { layers: [...layers.toReversed(), base] });
    expect(await sandbox.print("cat /stack/all /stack/two /stack/three /stack/lost")).toBe("lowmiddlelowlow");
  });

  it("has the attributes of the topmost layer's root directory, with owners as the cell has them", async (context) => {
    const { kernel, dataDir } = machine;
    const source = join(machine.home, "attributes");
    const data = join(source, "data");
    mkdirSync(source);
    await kernel.mountUpper({ path: source, image: null, sizeBytes: 1_048_576, index: 5 });
    try {
      // a default list with the user 7, as the kernel writes it; attributes of users are on tmpfs since Linux 6.6
      const user = machine.uidBase + 5 * 65_536 + 7;
      const set = (name: string, value: string): void => {
        execFileSync("setfattr", ["-n", name, "-v", value, data], { stdio: "pipe" });
      };
      set("system.posix_acl_default", accessList(user));
      try {
        set("user.mark", "mine");
      } catch {
        console.log("tmpfs has no attributes of users here");
      }
      const list = attributesOf(data);
      await kernel.capture("attributes.erofs", [{ kind: "upper", path: source, index: 5 }]);
      await kernel.mountLayer("attributes", "attributes.erofs", "erofs");
      if (attributesOf(`/proc/${await machine.hostPid()}/root/l/attributes`) === "")
        context.skip("this kernel's erofs has no access lists");
      await using sandbox = await TestSandbox.make(machine, 6, { layers: ["attributes", base] });
      const other = accessList(machine.uidBase + 6 * 65_536 + 7);
      expect(attributesOf(join(sandbox.upper, "data"))).toBe(list.replace(accessList(user), other));
    } finally {
      await kernel.unmountLayer("attributes");
      await kernel.unmountUpper(source);
      rmSync(join(dataDir, "attributes.erofs"), { force: true });
    }
  });

  /** Names and values, but for those of overlayfs. */
  const attributesOf = (directory: string): string =>
    execFileSync("getfattr", ["-d", "-m", "^(user|system)", "-e", "hex", "--absolute-names", directory], {
      encoding: "utf8",
    })
      .split("\n")
      .filter((line) => line.includes("="))
      .toSorted()
      .join("\n");

  /** An access list that names one user. Source: include/uapi/linux/posix_acl_xattr.h */
  function accessList(user: number): string {
    const entries = [
      [0x01, 7, 0xffff_ffff],
      [0x02, 5, user],
      [0x04, 5, 0xffff_ffff],
      [0x10, 7, 0xffff_ffff],
      [0x20, 5, 0xffff_ffff],
    ] as const;
    const bytes = Buffer.alloc(4 + 8 * entries.length);
    bytes.writeUInt32LE(2, 0);
    for (const [at, [tag, mode, id]] of entries.entries()) {
      bytes.writeUInt16LE(tag, 4 + 8 * at);
      bytes.writeUInt16LE(mode, 6 + 8 * at);
      bytes.writeUInt32LE(id, 8 + 8 * at);
    }
    return `0x${bytes.toString("hex")}`;
  }

  it("is written to its upper alone; another on the same layers sees nothing of it", async () => {
    await using one = await TestSandbox.make(machine, 2, { layers: [...layers, base] });
    await using other = await TestSandbox.make(machine, 3, { layers: [...layers, base] });
    await one.print("cd /stack; echo changed >all; rm two; mkdir new; chown 7:7 alone; rm -r /home");
    expect(await one.print("cd /stack; cat all; ls; stat -c %u alone; test ! -e /home")).toBe(
      "changed\nall\nalone\ngone\nnew\nthree\n7\n",
    );
    expect(await other.print("cd /stack; cat all two; ls; stat -c %u alone; ls /home")).toBe(
      "toptopall\nalone\ngone\nthree\ntwo\n0\nuser\n",
    );
    expect(readFileSync(join(one.upper, "data/stack/all"), "utf8")).toBe("changed\n");
    const lower = `/proc/${await machine.hostPid()}/root/l/${layers[0] ?? ""}/stack`;
    expect(readFileSync(join(lower, "all"), "utf8")).toBe("top");
    expect(() => writeFileSync(join(lower, "all"), "x")).toThrow(/EROFS/);
  });

  it("has a name, and knows it", async () => {
    await using sandbox = await TestSandbox.make(machine, 4);
    expect(await sandbox.print("hostname; cat /etc/hostname /etc/hosts")).toBe(
      "cell-4\ncell-4\n127.0.0.1\tlocalhost cell-4\n::1\tlocalhost ip6-localhost ip6-loopback\n",
    );
    expect(await sandbox.print("cat /proc/sys/kernel/hostname")).toBe("cell-4\n");
    expect(readFileSync("/proc/sys/kernel/hostname", "utf8")).not.toBe("cell-4\n");
  });

  it("is not written to when its upper is an old one", async () => {
    await using sandbox = await TestSandbox.make(machine, 5);
    await sandbox.print("echo mine >/etc/hosts; rm /etc/hostname; echo kept >/root/file");
    await machine.kernel.killCell(5);
    await machine.kernel.makeCell(5, { nestedUserns: false });
    await sandbox.giveRoot([base], false);
    expect(await sandbox.print("hostname; cat /etc/hosts /root/file; test ! -e /etc/hostname")).toBe(
      "cell-5\nmine\nkept\n",
    );
  });

  it("is all that there is: nothing of the host or of the place where it was put together", async () => {
    await using sandbox = await TestSandbox.make(machine, 6);
    const mounts = readFileSync(`/proc/${sandbox.pid}/mountinfo`, "utf8");
    expect(mounts).not.toContain(machine.mark);
    expect(mounts.split("\n").filter((line) => line.split(" ")[4] === "/")).toHaveLength(1);
    expect(mounts).toMatch(/ \/ \/ rw,nosuid,nodev[^\n]* - overlay /);
    expect(readdirSync(`/proc/${await machine.hostPid()}/root/t`)).toEqual([]);
  });

  it.each([
    ["missing", (): string[] => [base, "absent"], "ENOENT"],
    ["none at all", (): string[] => [], "EBADMSG"],
    ["badly named", (): string[] => ["../l", base], "EINVAL"],
    ["too many", (): string[] => Array.from({ length: 145 }, () => base), "EBADMSG"],
  ])("whose layers are %s is refused, and the cell can have another", async (_, wrong, errno) => {
    await using sandbox = new TestSandbox(machine, 7);
    await sandbox.makeCell();
    await expect(sandbox.giveRoot(wrong())).rejects.toMatchObject({ code: "kernel", details: { errno } });
    expect(readdirSync(`/proc/${await machine.hostPid()}/root/t`)).toEqual([]);
    expect(readdirSync(`/proc/${sandbox.pid}/root`).toSorted()).toEqual(["dev", "proc", "sys"]);
    await sandbox.giveRoot([base]);
    expect(await sandbox.print("echo usable")).toBe("usable\n");
  });

  it("that is refused leaves a cell that can be killed cleanly", async () => {
    await using sandbox = new TestSandbox(machine, 8);
    await sandbox.makeCell();
    await expect(sandbox.giveRoot(["absent"])).rejects.toMatchObject({ code: "kernel" });
    await machine.kernel.killCell(8);
    expect(existsSync(machine.kernel.cgroupPath(8))).toBe(false);
  });

  it("without an upper, or for no cell, is refused", async () => {
    await using sandbox = new TestSandbox(machine, 9);
    await sandbox.makeCell();
    await machine.kernel.unmountUpper(sandbox.upper);
    await expect(sandbox.giveRoot([base])).rejects.toMatchObject({ code: "kernel" });
    const plan = { fresh: true, named: true, hostname: "x", upper: sandbox.upper, layers: [base] };
    await expect(machine.kernel.giveRoot(77, plan)).rejects.toMatchObject({ details: { errno: "ESRCH" } });
  });

  it.each(["erofs", "squashfs"] as const)(
    "of %s layers is made where this kernel can shift their owners",
    async (format) => {
      await machine.kernel.mountLayer("of its format", machine.image("000-base-test", format), format);
      try {
        await using sandbox = new TestSandbox(machine, 10);
        await sandbox.makeCell();
        const giving = sandbox.giveRoot(["of its format"]);
        if (mappableFormats(release()).includes(format)) {
          await giving;
          expect(await sandbox.print("stat -c %u /bin/busybox")).toBe("0\n");
        } else {
          await expect(giving).rejects.toMatchObject({
            details: { errno: "EINVAL", step: /shift the owners of layer/ },
          });
          await sandbox.giveRoot([base]);
          expect(await sandbox.print("echo usable")).toBe("usable\n");
        }
      } finally {
        await machine.kernel.unmountLayer("of its format");
      }
    },
  );
});

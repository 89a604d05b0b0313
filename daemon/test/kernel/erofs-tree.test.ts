import { execFileSync } from "node:child_process";
import {
  closeSync,
  mkdirSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { beforeEach, describe, expect, it } from "vitest";
import { isSquashError } from "@squash/sdk/errors";
import { readErofsTree } from "../../src/modules/erofs-tree.js";
import { TreeBudget } from "../../src/modules/oci/layer-tree.js";
import type { DirectoryNode, FileNode, TreeNode } from "../../src/modules/oci/tree.js";
import { lacks } from "../../../test/support/needs.js";
import { useKernel } from "./test-kernel.js";

const mebibyte = 1_048_576;

/** One line for each file, in the form of the shell's below. */
function survey(root: DirectoryNode): string[] {
  const lines: string[] = [];
  const pending: [string, TreeNode][] = [[".", root]];
  for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
    const [path, node] = next;
    if (node.kind === "whiteout") lines.push(`${path} c`);
    else {
      const { mode, uid, gid, mtimeS } = node.attributes ?? { mode: 0, uid: 0, gid: 0, mtimeS: 0 };
      const kind = { file: "f", directory: "d", symlink: "l", fifo: "p" }[node.kind];
      const rest = node.kind === "symlink" ? node.target : node.kind === "file" ? String(node.content.size) : "";
      lines.push(`${path} ${kind} ${mode.toString(8)} ${uid} ${gid} ${mtimeS} ${rest}`.trimEnd());
      if (node.kind === "directory")
        for (const [name, child] of node.children) pending.push([`${path}/${name}`, child]);
    }
  }
  return lines.toSorted();
}

/** The same of a directory of this machine. */
function surveyOf(root: string, uidBase: number): string[] {
  const format = "%p %y %m %U %G %T@ \\t%s\\t%l\\0";
  const output = execFileSync("find", [".", "-printf", format], { cwd: root, encoding: "latin1", maxBuffer: 2 ** 26 });
  return output
    .split("\0")
    .filter((line) => line !== "")
    .map((line) => {
      const [, path = "", kind = "", mode = "", uid = "", gid = "", time = "", size = "", target = ""] =
        /^(.*) (\w) (\d+) (\d+) (\d+) ([\d.-]+) \t(\d+)\t(.*)$/s.exec(line) ?? [];
      if (kind === "c") return `${path} c`;
      const own = (id: string): number => (Number(id) >= uidBase ? Number(id) - uidBase : Number(id));
      const rest = kind === "l" ? target : kind === "f" ? size : "";
      return `${path} ${kind} ${mode} ${own(uid)} ${own(gid)} ${Math.floor(Number(time))} ${rest}`.trimEnd();
    })
    .toSorted();
}

function contentOf({ content, extents }: FileNode): Buffer {
  const bytes = Buffer.alloc(content.size);
  const file = openSync(content.path, "r");
  for (const { at, offset, size } of extents ?? [{ at: 0, offset: content.offset, size: content.size }])
    readSync(file, bytes, at, size, offset);
  closeSync(file);
  return bytes;
}

function fileAt(root: DirectoryNode, name: string): FileNode {
  const node = root.children.get(name);
  if (node?.kind !== "file") throw new Error(`${name} is no file`);
  return node;
}

describe.skipIf(lacks("root"))("readErofsTree()", () => {
  const machine = useKernel();
  const upper = join(machine.home, "upper");
  const data = join(upper, "data");
  const path = join(machine.dataDir, "captured.erofs");

  beforeEach(() => {
    rmSync(path, { force: true });
    mkdirSync(upper, { recursive: true });
  });

  async function captured(fill: () => void): Promise<void> {
    const { kernel } = machine;
    await kernel.mountUpper({ path: upper, image: null, sizeBytes: 64 * mebibyte, index: 0 });
    try {
      fill();
      await kernel.capture("captured.erofs", [{ kind: "upper", path: upper, index: 0 }]);
    } finally {
      await kernel.unmountUpper(upper);
    }
  }

  it("finds every file of a capture with all that a module keeps, and its content", async () => {
    const holes = Buffer.alloc(3 * mebibyte);
    let wanted: string[] = [];
    await captured(() => {
      mkdirSync(join(data, "many"));
      for (let at = 0; at < 700; at++) writeFileSync(join(data, `many/a-rather-long-name-of-a-file-${at}`), "");
      writeFileSync(join(data, "text"), "x".repeat(10_000));
      writeFileSync(Buffer.from(`${data}/na\xffme\n`, "latin1"), "odd");
      symlinkSync("../up", join(data, "short"));
      symlinkSync("x".repeat(4000), join(data, "long"));
      writeFileSync(join(data, "holes"), "");
      truncateSync(join(data, "holes"), holes.length);
      const file = openSync(join(data, "holes"), "r+");
      for (const at of [5_000, 1_000_000, holes.length - 3]) {
        writeSync(file, "abc", at);
        holes.write("abc", at);
      }
      closeSync(file);
      execFileSync("sh", [
        "-ec",
        `cd '${data}'; ln text many/linked; mkfifo -m 600 pipe; mknod gone c 0 0; mknod null c 1 3; mkdir -m 1777 opaque
        setfattr -n trusted.overlay.opaque -v y opaque; chmod 6755 text; chown ${machine.uidBase + 7}:${machine.uidBase + 8} text
        touch -d @1000000000 many; setfattr -n user.one -v 1 text 2>/dev/null || true; rm null`,
      ]);
      wanted = surveyOf(data, machine.uidBase);
    });
    const tree = readErofsTree(path);
    expect(survey(tree)).toEqual(wanted);
    expect(contentOf(fileAt(tree, "text")).toString()).toBe("x".repeat(10_000));
    expect(contentOf(fileAt(tree, "holes")).equals(holes)).toBe(true);
    const many = tree.children.get("many");
    expect(many?.kind === "directory" && many.children.get("linked")).toBe(tree.children.get("text"));
    expect(tree.children.get("opaque")).toMatchObject({ isOpaque: true });
    expect(tree.children.get("many")).toMatchObject({ isOpaque: false });
  });

  it("reads what is damaged as something, or refuses it, and always comes to an end", async () => {
    await captured(() => {
      for (const name of ["a", "b", "c"]) {
        mkdirSync(join(data, name));
        for (let at = 0; at < 30; at++) writeFileSync(join(data, name, `${at}`), "text");
        symlinkSync("target", join(data, name, "link"));
      }
      truncateSync(openAndClose(join(data, "holes")), mebibyte);
    });
    const whole = readFileSync(path);
    const broken = join(machine.dataDir, "broken.erofs");
    const seed = Number(process.env["TEST_SEED"] ?? Date.now() % 2 ** 31);
    console.log(`seed ${seed} (set TEST_SEED to repeat)`);
    // data comes first in an image, and is nobody's business here
    const place = fc.integer({ min: 1024, max: whole.length - 1 });
    const flips = fc.array(fc.tuple(place, fc.integer({ min: 0, max: 255 })), { minLength: 1, maxLength: 8 });
    fc.assert(
      fc.property(flips, fc.option(fc.integer({ min: 0, max: whole.length })), (changed, length) => {
        const bytes = Buffer.from(whole.subarray(0, length ?? whole.length));
        for (const [at, value] of changed) if (at < bytes.length) bytes.writeUInt8(value, at);
        writeFileSync(broken, bytes);
        try {
          survey(readErofsTree(broken, new TreeBudget({ nodes: 2_000 })));
        } catch (error) {
          expect([error, isSquashError(error) && error.code]).toEqual([error, "build_failed"]);
        }
      }),
      { seed, numRuns: Number(process.env["TEST_RUNS"] ?? 300), endOnFailure: true },
    );
    expect(() => readErofsTree(path, new TreeBudget({ nodes: 20 }))).toThrow(/too many files/);
  });

  function openAndClose(file: string): string {
    writeFileSync(file, "");
    return file;
  }
});

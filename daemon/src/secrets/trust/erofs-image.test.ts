import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, describe, expect, it } from "vitest";
import { fuzz } from "../../core/egress/testing/fuzz.js";
import { readErofsTree } from "../../modules/erofs-tree.js";
import type { TreeNode } from "../../modules/oci/tree.js";
import { erofsImage, type ImageAttributes, type ImageDirectory, type ImageNode } from "./erofs-image.js";

const directory = mkdtempSync(join(tmpdir(), "sq-erofs-"));
const path = join(directory, "image");
const hasChecker = spawnSync("fsck.erofs", ["-V"]).status === 0;

afterAll(() => rmSync(directory, { recursive: true }));

const plain: ImageAttributes = { mode: 0o644, uid: 0, gid: 0, mtimeS: 1_000_000_000, xattrs: new Map() };

function folder(children: Record<string, ImageNode>, more: Partial<ImageAttributes> = {}): ImageDirectory {
  return {
    kind: "directory",
    attributes: { ...plain, mode: 0o755, ...more },
    children: new Map(Object.entries(children)),
  };
}

/** What was written, in the form of `told`. */
function wanted(node: ImageNode): unknown {
  const { mode, uid, gid, mtimeS, xattrs } = node.attributes;
  const attributes = [mode, uid, gid, mtimeS, Object.fromEntries(xattrs)];
  if (node.kind === "file") return [attributes, node.content.toString("latin1")];
  return [attributes, Object.fromEntries([...node.children].map(([name, child]) => [name, wanted(child)]))];
}

/** What another reader finds. */
function told(node: TreeNode): unknown {
  if (node.kind !== "file" && node.kind !== "directory") return node.kind;
  const { mode, uid, gid, mtimeS, xattrs } = node.attributes!;
  const attributes = [mode, uid, gid, mtimeS, Object.fromEntries(xattrs)];
  if (node.kind === "directory")
    return [attributes, Object.fromEntries([...node.children].map(([name, child]) => [name, told(child)]))];
  const { offset, size } = node.content;
  return [attributes, readFileSync(path).toString("latin1", offset, offset + size)];
}

function check(root: ImageDirectory): void {
  const image = erofsImage(root);
  expect(erofsImage(root).equals(image)).toBe(true);
  writeFileSync(path, image);
  expect(told(readErofsTree(path))).toEqual(wanted(root));
  if (hasChecker) execFileSync("fsck.erofs", [path], { stdio: "pipe" });
}

describe("erofsImage()", () => {
  it("has files, directories and attributes as they were given", () => {
    const xattrs = new Map([
      ["user.note", Buffer.from("kept")],
      ["user.empty", Buffer.alloc(0)],
    ]);
    check(
      folder({
        etc: folder(
          {
            "a.pem": {
              kind: "file",
              attributes: { ...plain, uid: 7, gid: 8, xattrs },
              content: Buffer.alloc(9000, "x"),
            },
          },
          { mode: 0o2711, xattrs },
        ),
        empty: { kind: "file", attributes: plain, content: Buffer.alloc(0) },
        block: { kind: "file", attributes: plain, content: Buffer.alloc(4096, "y") },
      }),
    );
    check(folder({}));
  });

  it("has a UUID of its own, by which overlayfs tells it from others", () => {
    const uuidOf = (name: string, content: string): string => {
      const file: ImageNode = { kind: "file", attributes: plain, content: Buffer.from(content) };
      return erofsImage(folder({ [name]: file })).toString("hex", 1072, 1088);
    };
    const uuids = [uuidOf("a", "x"), uuidOf("a", "y"), uuidOf("b", "x"), uuidOf("b", "y")];
    expect(new Set(uuids).size).toBe(4);
    for (const uuid of uuids) expect(uuid).toMatch(/^.{12}8.{3}[89ab].{15}$/);
    expect(uuidOf("a", "x")).toBe(uuids[0]);
  });

  it("is read back as it was written, whatever the tree", { timeout: 60_000 }, () => {
    const name = fc
      .string({ unit: fc.constantFrom(...Array.from("abAZ09.-_ \xff\xe9")), minLength: 1, maxLength: 60 })
      .filter((text) => text !== "." && text !== "..");
    const attributes = fc.record({
      mode: fc.integer({ min: 0, max: 0o7777 }),
      uid: fc.integer({ min: 0, max: 65_535 }),
      gid: fc.integer({ min: 0, max: 65_535 }),
      mtimeS: fc.integer({ min: 0, max: 0xffff_ffff }),
      xattrs: fc
        .dictionary(
          fc.stringMatching(/^user\.[a-z]{1,200}$/),
          fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)),
          { maxKeys: 4 },
        )
        .map((record) => new Map(Object.entries(record))),
    });
    const content = fc.oneof(
      fc.uint8Array({ maxLength: 50 }),
      fc.constantFrom(4095, 4096, 4097, 70_000).map((size) => new Uint8Array(size).fill(65)),
    );
    const file = fc
      .record({ attributes, content })
      .map((one): ImageNode => ({ kind: "file", attributes: one.attributes, content: Buffer.from(one.content) }));
    const { node } = fc.letrec<{ node: ImageNode; directory: ImageNode }>((tie) => ({
      node: fc.oneof({ maxDepth: 4 }, file, tie("directory")),
      directory: fc
        .record({
          attributes,
          children: fc.uniqueArray(fc.tuple(name, tie("node")), { selector: ([key]) => key, maxLength: 6 }),
        })
        .map((one): ImageNode => ({ kind: "directory", attributes: one.attributes, children: new Map(one.children) })),
    }));
    const root = fc
      .array(node, { maxLength: 4 })
      .map((nodes) => folder(Object.fromEntries(nodes.map((each, index) => [`n${index}`, each]))));
    fuzz(fc.property(root, check), 60);
  });

  it("refuses what it has no room for", () => {
    const many = Object.fromEntries(
      Array.from({ length: 100 }, (_, index) => [`${index}`.padStart(60, "x"), folder({})]),
    );
    expect(() => erofsImage(folder(many))).toThrow(RangeError);
    expect(() => erofsImage(folder({}, { xattrs: new Map([["strange", Buffer.alloc(0)]]) }))).toThrow(RangeError);
    expect(() => erofsImage(folder({}, { xattrs: new Map([["user.large", Buffer.alloc(70_000)]]) }))).toThrow(
      RangeError,
    );
  });
});

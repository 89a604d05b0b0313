import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { TreeBudget } from "./layer-tree.js";
import { listTar, makeTar, mergeTars, placed, type Member } from "./testing/layers.js";
import { writeTreeTar } from "./tree-tar.js";

let folder: string;
let count = 0;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "squash-layers-"));
});
afterEach(() => rmSync(folder, { recursive: true }));

const newFile = (): string => join(folder, `file-${++count}`);

async function stack(layers: readonly (readonly Member[])[], budget?: TreeBudget) {
  const ranges = [];
  for (const members of layers) ranges.push(placed(newFile(), await makeTar(members)));
  return mergeTars(ranges, budget);
}

type Trees = Awaited<ReturnType<typeof stack>>;

/** A tree as it is written to a tar file: what stands there by name, contents of links those of what they are linked to. */
async function written(tree: Trees["merged"], limit = 2 ** 30): Promise<Record<string, string>> {
  const path = newFile();
  await writeTreeTar(tree, path, { limit });
  const bytes = readFileSync(path);
  const listing: Record<string, string> = {};
  for (const entry of await listTar({ path, offset: 0, size: bytes.length })) {
    const content = bytes.toString("latin1", entry.offset, entry.offset + entry.size);
    const opaque = entry.xattrs.has("trusted.overlay.opaque") ? " opaque" : "";
    const name = entry.name.replace(/\/$/, "");
    if (name in listing) throw new Error(`"${name}" stands there twice`);
    listing[name] =
      entry.type === "0"
        ? `file ${content}`
        : entry.type === "1"
          ? (listing[entry.linkname] ?? "a link to nothing before it")
          : entry.type === "2"
            ? `link to ${entry.linkname}`
            : entry.type === "5"
              ? `directory ${entry.mode.toString(8)}${opaque}`
              : `type ${entry.type}`;
  }
  return listing;
}

const flat = async (...layers: (readonly Member[])[]): Promise<Record<string, string>> =>
  written((await stack(layers)).merged);
const file = (name: string, content = name): Member => ({ name, content });
const dir = (name: string, mode = 0o755): Member => ({ name, type: "directory", mode });
const link = (name: string, linkname: string): Member => ({ name, type: "link", linkname });
const symlink = (name: string, linkname: string): Member => ({ name, type: "symlink", linkname });

describe("Layers that are merged", () => {
  it("show the upper file, and both directories' files", async () => {
    expect(await flat([dir("d"), file("d/a"), file("d/b", "old")], [dir("d", 0o700), file("d/b", "new")])).toEqual({
      d: "directory 700",
      "d/a": "file d/a",
      "d/b": "file new",
    });
  });

  it("lose what whiteouts name, wherever those stand in their layer, but not what is beside them", async () => {
    const lower = [dir("d"), file("d/a"), file("d/b"), dir("e"), file("e/f")];
    expect(await flat(lower, [file("d/.wh.a", ""), file("d/c"), file(".wh.e", "")])).toEqual({
      d: "directory 755",
      "d/b": "file d/b",
      "d/c": "file d/c",
    });
    for (const upper of [
      [file("e/new"), file(".wh.e", "")],
      [file(".wh.e", ""), file("e/new")],
      [file("e/.wh..wh..opq", ""), file("e/new")],
      [file("e/new"), file("e/.wh..wh..opq", "")],
    ]) {
      expect(await flat(lower, upper)).toMatchObject({ e: "directory 755", "e/new": "file e/new" });
      expect(await flat(lower, upper)).not.toHaveProperty(["e/f"]);
    }
    expect(await flat(lower, [file("d/.wh.nothing", "")])).toEqual(await flat(lower));
  });

  it("lose all below an opaque root", async () => {
    expect(await flat([file("a")], [file(".wh..wh..opq", ""), file("b")])).toEqual({ b: "file b" });
  });

  it("keep a hard link's content when its first name is replaced or removed", async () => {
    const lower = [file("a", "one"), link("b", "./a"), link("c", "/a")];
    expect(await flat(lower, [file("a", "two")])).toEqual({ a: "file two", b: "file one", c: "file one" });
    expect(await flat(lower, [file(".wh.a", "")])).toEqual({ b: "file one", c: "file one" });
  });

  it("may have hard links to a lower layer's file, also to one that goes", async () => {
    const layers = [[file("a", "one")], [link("b", "a"), file(".wh.a", "")]];
    expect(await flat(...layers)).toEqual({ b: "file one" });
    const [, upper] = (await stack(layers)).layers;
    expect(await written(upper!)).toEqual({ a: "type 3", b: "file one" });
  });

  it.each<Member>([
    link("x", "nothing"),
    link("x", "d"),
    link("x", "../a"),
    link("x", ""),
    link("x", "s/a"),
    file("../x"),
    file("a/x"),
    file("s/x"),
    dir("s/x"),
    file(".wh.", ""),
    { name: "x", type: "contiguous-file", pax: { path: "a\0b" } },
    { name: "x", pax: { "GNU.sparse.major": "1" } },
    { name: "x", pax: { uid: "4294967295" } },
    { name: "x", pax: { size: "-1" } },
    { name: "x", pax: { uid: "many" } },
    symlink("x", `${"y/".repeat(2_047)}yy`),
  ])("are refused with %#: $name", async (entry) => {
    const layers = [[file("lower")], [dir("d"), file("d/f"), file("a"), symlink("s", "d"), entry]];
    await expect(stack(layers)).rejects.toMatchObject({ code: "build_failed", message: /: layer 2: / });
  });

  it("have a directory where a path goes through a file or link of a lower layer, which stays where it is", async () => {
    expect(await flat([dir("t"), symlink("s", "t"), file("f")], [file("s/x"), file("f/y")])).toEqual({
      t: "directory 755",
      s: "directory 755",
      "s/x": "file s/x",
      f: "directory 755",
      "f/y": "file f/y",
    });
  });

  it("keep links that lead outside as they are", async () => {
    const links = [symlink("a", "/etc/shadow"), symlink("b", "../../../x"), symlink("c", "a")];
    expect(await flat(links)).toEqual({ a: "link to /etc/shadow", b: "link to ../../../x", c: "link to a" });
  });

  it("have no devices, which hide what is below them all the same", async () => {
    const device: Member = { name: "a", type: "character-device", devmajor: 1, devminor: 3 };
    expect(await flat([file("a"), file("b")], [device, { ...device, name: "c", type: "block-device" }])).toEqual({
      b: "file b",
    });
  });

  it("take the last of entries with one name", async () => {
    expect(await flat([file("a", "1"), file("a", "2"), dir("b"), file("b/c"), file("b", "now a file")])).toEqual({
      a: "file 2",
      b: "file now a file",
    });
    expect(await flat([dir("b"), file("b/c"), dir("b", 0o700)])).toEqual({ b: "directory 700", "b/c": "file b/c" });
  });

  it("keep the attributes of directories that an upper layer only passes through", async () => {
    const lower = [dir("d", 0o1777), dir("d/e", 0o700), file("d/e/f")];
    const { layers, merged } = await stack([lower, [file("d/e/g")]]);
    expect(await written(merged)).toMatchObject({ d: "directory 1777", "d/e": "directory 700" });
    expect(await written(layers[1]!)).toMatchObject({ d: "directory 1777", "d/e": "directory 700" });
  });

  it("keep owners, times, long names, attributes of users, and no others", async () => {
    const name = `${"long".repeat(40)}/${"é".repeat(100)}`;
    const xattrs = {
      "user.x": "1",
      "user.overlay.opaque": "y",
      "trusted.overlay.redirect": "/",
      "security.capability": "",
    };
    const pax = Object.fromEntries(Object.entries(xattrs).map(([key, value]) => [`SCHILY.xattr.${key}`, value]));
    pax["uid"] = "3000000";
    const { merged } = await stack([[{ name, content: "c", gid: 5, mode: 0o6755, pax }]]);
    const path = newFile();
    expect(await writeTreeTar(merged, path, { limit: 2 ** 20 })).toEqual({ devices: [], latestMtimeS: 1_700_000_000 });
    const entries = await listTar({ path, offset: 0, size: readFileSync(path).length });
    expect(entries.at(-1)).toMatchObject({
      name: Buffer.from(name).toString("latin1"),
      uid: 3_000_000,
      gid: 5,
      mode: 0o6755,
      mtimeS: 1_700_000_000,
      xattrs: new Map([["user.x", Buffer.from("1")]]),
    });
  });

  it("have the same bytes whatever the order of their entries", async () => {
    const members = [dir("b"), file("a"), file("b/z"), file("b/a"), dir("c")];
    const [one, two] = [newFile(), newFile()];
    await writeTreeTar((await stack([members])).merged, one, { limit: 2 ** 20 });
    await writeTreeTar((await stack([members.toReversed()])).merged, two, { limit: 2 ** 20 });
    expect(readFileSync(one).equals(readFileSync(two))).toBe(true);
  });

  it("are bounded in files, names and bytes", async () => {
    const members = [file("a/b/c/d/e"), file("f")];
    expect(await written((await stack([members], new TreeBudget({ nodes: 6 }))).merged)).toHaveProperty(["f"]);
    await expect(stack([members], new TreeBudget({ nodes: 5 }))).rejects.toThrow(/layer 1: .* too many files/);
    await expect(stack([members], new TreeBudget({ bytes: 9 }))).rejects.toThrow(/too long together/);
    await expect(written((await stack([[file("a", "x".repeat(10_000))]])).merged, 8_000)).rejects.toThrow(/too large/);
  });

  it("may be as deep as a path can be", async () => {
    const name = `${"a/".repeat(2_000)}b`;
    expect(await flat([file(name, "deep")], [file(`${"a/".repeat(1_999)}.wh.a`, ""), file("x")])).not.toHaveProperty([
      name,
    ]);
    expect(await flat([file(name, "deep")], [file(`${"a/".repeat(1_000)}c`)])).toMatchObject({ [name]: "file deep" });
  });
});

/** What a layer says of a path in a simple model: a flat map, changed entry by entry. */
type Model = Map<string, Shown>;

interface Shown {
  readonly shown: string;
  readonly isDirectory: boolean;
}

const implicit = { shown: "directory 755", isDirectory: true };

function removeBelow(model: Model, path: string): void {
  for (const each of [...model.keys()]) if (path === "" || each.startsWith(`${path}/`)) model.delete(each);
}

function ancestors(path: string): string[] {
  const names = path.split("/");
  return names.slice(1).map((_, index) => names.slice(0, index + 1).join("/"));
}

function put(model: Model, path: string, value: Shown): void {
  pass(model, path);
  if (!value.isDirectory) removeBelow(model, path);
  model.set(path, value);
}

function pass(model: Model, path: string): void {
  for (const each of ancestors(path)) if (model.get(each)?.isDirectory !== true) model.set(each, implicit);
}

/** Puts a layer onto the model; false for one that must be refused. */
function modelLayer(model: Model, members: readonly Member[]): boolean {
  const own = new Map<string, Shown>();
  for (const { name, type, linkname, content, mode } of members) {
    const base = name.slice(name.lastIndexOf("/") + 1);
    if (base.startsWith(".wh.")) continue;
    if (ancestors(name).some((each) => own.has(each) && own.get(each)?.isDirectory === false)) return false;
    if (type === "link") {
      const target = own.get(linkname!) ?? (hasOwn(own, linkname!) ? undefined : model.get(linkname!));
      if (target === undefined || target.isDirectory) return false;
      place(own, name, target);
    } else if (type === "directory") place(own, name, { shown: `directory ${mode!.toString(8)}`, isDirectory: true });
    else
      place(own, name, {
        shown: type === "symlink" ? `link to ${linkname!}` : `file ${String(content)}`,
        isDirectory: false,
      });
  }
  const marks = members
    .map(({ name }) => ({ parent: name.slice(0, Math.max(0, name.lastIndexOf("/"))), name }))
    .filter(({ name }) => /(?:^|\/)\.wh\.[^/]+$/.test(name))
    .filter(({ parent }) => ![parent, ...ancestors(parent)].some((each) => own.get(each)?.isDirectory === false));
  for (const { parent, name } of marks) {
    const gone = name.replace(".wh.", "");
    removeBelow(model, name.endsWith(".wh..wh..opq") ? parent : gone);
    if (!name.endsWith(".wh..wh..opq")) model.delete(gone);
  }
  for (const { name } of marks) pass(model, name);
  for (const path of [...own.keys()].toSorted()) {
    const value = own.get(path)!;
    put(model, path, value);
  }
  return true;
}

/** Whether a layer has something at a path of its own, if only a directory that it passes through. */
function hasOwn(own: ReadonlyMap<string, unknown>, path: string): boolean {
  return [...own.keys()].some((each) => each === path || each.startsWith(`${path}/`));
}

function place(own: Model, name: string, value: Shown): void {
  if (!value.isDirectory) for (const each of [...own.keys()]) if (each.startsWith(`${name}/`)) own.delete(each);
  own.set(name, value);
}

describe("Layers of any kind", () => {
  const name = fc.constantFrom("a", "b", "c");
  const path = fc.array(name, { minLength: 1, maxLength: 3 }).map((names) => names.join("/"));
  const folderOf = fc.array(name, { maxLength: 2 }).map((names) => names.map((each) => `${each}/`).join(""));
  const member: fc.Arbitrary<Member> = fc.oneof(
    { weight: 4, arbitrary: fc.tuple(path, fc.nat(99)).map(([at, number]) => file(at, String(number))) },
    { weight: 4, arbitrary: fc.tuple(path, fc.constantFrom(0o700, 0o1777, 0o711)).map(([at, mode]) => dir(at, mode)) },
    { weight: 1, arbitrary: fc.tuple(path, path).map(([at, target]) => symlink(at, target)) },
    { weight: 2, arbitrary: fc.tuple(path, path).map(([at, target]) => link(at, target)) },
    { weight: 2, arbitrary: fc.tuple(folderOf, name).map(([at, gone]) => file(`${at}.wh.${gone}`, "")) },
    { weight: 1, arbitrary: folderOf.map((at) => file(`${at}.wh..wh..opq`, "")) },
  );

  it("are merged as the simple model says", async () => {
    let [merges, refusals] = [0, 0];
    await fc.assert(
      fc.asyncProperty(fc.array(fc.array(member, { maxLength: 6 }), { minLength: 1, maxLength: 4 }), async (layers) => {
        const model: Model = new Map();
        if (!layers.every((members) => modelLayer(model, members))) {
          refusals++;
          await expect(stack(layers)).rejects.toMatchObject({ code: "build_failed" });
          return;
        }
        merges++;
        const { merged } = await stack(layers);
        expect(await written(merged)).toEqual(Object.fromEntries([...model].map(([at, { shown }]) => [at, shown])));
      }),
      { numRuns: 500 },
    );
    expect(Math.min(merges, refusals)).toBeGreaterThan(20);
  }, 60_000);

  it("are read without any other error, whatever bytes are damaged", async () => {
    const whole = await makeTar([
      dir("d"),
      file("d/a"),
      link("b", "d/a"),
      symlink("s", "x"),
      file("d/.wh.x", ""),
      file("long".repeat(60)),
      { name: "p", pax: { "SCHILY.xattr.user.x": "y" } },
    ]);
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.nat(whole.length - 1), fc.nat(255)), { minLength: 1, maxLength: 6 }),
        fc.nat(whole.length),
        async (changes, length) => {
          const bytes = Buffer.from(whole.subarray(0, length % 3 === 0 ? length : whole.length));
          for (const [at, value] of changes) if (at < bytes.length) bytes[at] = value;
          const end = await mergeTars([placed(newFile(), bytes)]).then(
            () => "taken",
            (error: { code?: string }) => error.code,
          );
          expect(["taken", "build_failed"]).toContain(end);
        },
      ),
      { numRuns: 400 },
    );
  });
});

import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { runTool } from "../run-tool.js";
import type { LocalImage } from "./image.js";
import { parsePlatform } from "./platform.js";
import { filesInArchive, filesInDirectory } from "./stored-files.js";
import { loadStored } from "./stored-image.js";
import {
  digestOf,
  layoutFiles,
  makeImage,
  makeIndex,
  savedArchive,
  writeFiles,
  type TestImage,
} from "./testing/images.js";
import { makeTar, type Member } from "./testing/layers.js";

const platform = parsePlatform("linux/amd64");
let image: TestImage;
let folder: string;
let layout: string;
let archive: string;

beforeAll(async () => {
  const same = { members: [{ name: "twice" }] };
  const layers = [same, { members: [{ name: "a" }], compression: "gzip" } as const, same];
  image = await makeImage(layers, { architecture: "amd64" });
});
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "squash-stored-"));
  layout = join(folder, "layout");
  archive = join(folder, "saved.tar");
});
afterEach(() => rmSync(folder, { recursive: true }));

const named = (name?: string): Buffer => makeIndex([[null, image.manifest, name]]).bytes;
const fromLayout = (reference: string | null = null): Promise<LocalImage> =>
  loadStored(filesInDirectory(layout), { platform, reference });

async function fromArchive(bytes: Buffer, reference: string | null = null, limit = 2 ** 24): Promise<LocalImage> {
  writeFileSync(archive, bytes);
  const files = await filesInArchive(archive, { scratch: folder, run: runTool, limit });
  return loadStored(files, { platform, reference });
}

function digests({ layers }: LocalImage): string[] {
  return layers.map(({ path, offset, size }) => digestOf(readFileSync(path).subarray(offset, offset + size)));
}

const members = (files: ReadonlyMap<string, Buffer>): Member[] =>
  [...files].map(([name, content]) => ({ name, content }));

describe("An image in an OCI layout", () => {
  it("is found, with its name", async () => {
    writeFiles(layout, layoutFiles(image, named("team/image:t")));
    const loaded = await fromLayout();
    expect(digests(loaded)).toEqual(image.layers.map(({ digest }) => digest));
    expect(loaded.reference).toBe("team/image:t");
  });

  it("is one of several, by its name or its platform", async () => {
    const other = await makeImage([{ members: [{ name: "other" }] }], { architecture: "amd64" });
    const files = layoutFiles(
      image,
      makeIndex([
        [null, image.manifest, "one"],
        [null, other.manifest, "two"],
      ]).bytes,
    );
    writeFiles(layout, new Map([...layoutFiles(other, Buffer.alloc(0)), ...files]));
    expect(digests(await fromLayout("two"))).toEqual(other.layers.map(({ digest }) => digest));
    await expect(fromLayout("three")).rejects.toMatchObject({ message: /none called "three", but "one, two"/ });
    await expect(fromLayout()).rejects.toMatchObject({ message: /not there for linux\/amd64/ });
    const arm = { ...other.manifest, digest: digestOf(Buffer.from("absent")) };
    writeFiles(
      layout,
      layoutFiles(
        image,
        makeIndex([
          ["linux/arm64", arm],
          ["linux/amd64", image.manifest],
        ]).bytes,
      ),
    );
    expect(digests(await fromLayout())).toEqual(image.layers.map(({ digest }) => digest));
  });

  it("is refused where a blob is another, cut off, missing, or a link", async () => {
    const blob = join(layout, "blobs/sha256", image.layers[1]!.digest.slice(7));
    const refused = (message: RegExp) => expect(fromLayout()).rejects.toMatchObject({ code: "build_failed", message });
    writeFiles(layout, layoutFiles(image, named()));
    writeFileSync(blob, Buffer.alloc(image.layers[1]!.size));
    await refused(/has the digest sha256/);
    truncateSync(blob, 10);
    await refused(/has 10 bytes, needed are/);
    rmSync(blob);
    await refused(/"blobs\/sha256\/[0-9a-f]+" is missing/);
    symlinkSync("/etc/passwd", blob);
    await refused(/is a link or a special file/);
    rmSync(layout, { recursive: true });
    await refused(/neither an index.json nor a manifest.json/);
    mkdirSync(join(layout, "index.json"), { recursive: true });
    await refused(/neither an index.json nor a manifest.json/);
  });

  it("is refused for another platform", async () => {
    const arm = await makeImage([{ members: [{ name: "arm" }] }], { architecture: "arm64" });
    writeFiles(layout, layoutFiles(arm, makeIndex([[null, arm.manifest]]).bytes));
    await expect(fromLayout()).rejects.toMatchObject({ message: /it is for "linux\/arm64", not linux\/amd64/ });
  });
});

describe("An image in an archive", () => {
  it("of the older kind is found, also by way of links between its layers, with its name", async () => {
    const loaded = await fromArchive(await savedArchive(image, "team/image:t"));
    expect(digests(loaded)).toEqual(image.tars.map(digestOf));
    expect(loaded.reference).toBe("team/image:t");
    const again = await fromArchive(await savedArchive(image, "team/image:t"), "team/image:t");
    expect(digests(again)).toEqual(digests(loaded));
    await expect(fromArchive(await savedArchive(image, "a:t"), "b:t")).rejects.toMatchObject({ message: /but "a:t"/ });
  });

  it("of the newer kind is found, also when that is compressed", async () => {
    const tar = await makeTar(members(layoutFiles(image, named())));
    const wanted = image.layers.map(({ digest }) => digest);
    expect(digests(await fromArchive(tar))).toEqual(wanted);
    expect(digests(await fromArchive(gzipSync(tar)))).toEqual(wanted);
  });

  it("is refused when it is too large unpacked, cut off, or no archive", async () => {
    const tar = await savedArchive(image, "a:t");
    await expect(fromArchive(gzipSync(Buffer.alloc(2 ** 20)), null, 2 ** 16)).rejects.toMatchObject({
      message: /too large/,
    });
    await expect(fromArchive(tar.subarray(0, 1_000))).rejects.toMatchObject({ code: "build_failed" });
    await expect(fromArchive(Buffer.from("no archive".repeat(100)))).rejects.toMatchObject({ code: "build_failed" });
    writeFileSync(archive, "");
    const absent = filesInArchive(join(folder, "absent"), { scratch: folder, run: runTool, limit: 1 });
    await expect(absent).rejects.toMatchObject({ code: "build_failed", message: /ENOENT/ });
  });

  it.each<[string, readonly Member[], RegExp]>([
    ["names that climb", [{ name: "../x" }], /is a path with "\.\."/],
    [
      "links in circles",
      [{ name: "manifest.json", type: "link", linkname: "manifest.json" }],
      /link to ever more links/,
    ],
    [
      "a link that leads out",
      [{ name: "manifest.json", type: "symlink", linkname: "../../../etc/passwd" }],
      /neither an/,
    ],
    [
      "too large a manifest",
      [{ name: "manifest.json", content: " ".repeat(2 ** 23 + 1) }],
      /larger than 8388608 bytes/,
    ],
    ["a manifest of nothing", [{ name: "manifest.json", content: "[]" }], /manifest.json is wrong/],
    [
      "a layer that is missing",
      [
        { name: "manifest.json", content: '[{"Config":"c","Layers":["l"]}]' },
        { name: "c", content: `{"rootfs":{"type":"layers","diff_ids":["${digestOf(Buffer.alloc(0))}"]}}` },
      ],
      /"l" is missing/,
    ],
    [
      "several images and no word which",
      [{ name: "manifest.json", content: '[{"Config":"c","Layers":[]},{"Config":"d","Layers":[]}]' }],
      /there are several/,
    ],
  ])("is refused for %s", async (_what, files, message) => {
    await expect(fromArchive(await makeTar(files))).rejects.toMatchObject({ message });
  });
});

import { createHash } from "node:crypto";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { trustByHand } from "../../../test/support/modules.js";
import { Modules } from "../core/modules.js";
import { newSandbox, type Sandbox } from "../core/sandbox.js";
import type { ModuleUpload } from "../core/service.js";
import { DirectoryCatalog } from "./catalog.js";
import { appendTrailer } from "./module-trailer.js";
import { ModuleUploads } from "./module-upload.js";

let dataDir: string;
let catalog: DirectoryCatalog;
let modules: Modules;
let uploads: ModuleUploads;
let sandboxes: Sandbox[];

beforeEach(() => {
  dataDir = mkdtempSync(join(tmpdir(), "squash-upload-"));
  mkdirSync(join(dataDir, "modules"));
  catalog = new DirectoryCatalog(dataDir, { defaultLayers: [] });
  sandboxes = [];
  modules = new Modules(catalog, { all: () => sandboxes });
  uploads = new ModuleUploads(catalog, modules, { maxBytes: 100_000 });
});
afterEach(() => rmSync(dataDir, { recursive: true }));

/** What passes for a squashfs image as far as its superblock goes; `mark` tells one from the other. */
function imageOf(mark: string): Buffer {
  const image = Buffer.alloc(4_096, 255);
  image.fill(0, 0, 48);
  image.write("hsqs");
  image.writeUInt32LE(1, 4);
  image.writeUInt32LE(131_072, 12);
  image.set([6, 0, 17, 0], 20);
  image.set([4, 0, 0, 0], 28);
  image.writeBigUInt64LE(4_096n, 40);
  image.write(mark, 100);
  return image;
}

async function* inPieces(bytes: Buffer, size = 1_000): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) {
    await Promise.resolve();
    yield bytes.subarray(at, at + size);
  }
}

function upload(bytes: Buffer, more: Partial<ModuleUpload> = {}): ModuleUpload {
  const sha256 = createHash("sha256").update(bytes).digest("hex");
  const { signal } = new AbortController();
  return { body: inPieces(bytes), sha256, replace: false, signal, ...more };
}

const files = (): string[] => readdirSync(join(dataDir, "modules")).toSorted();

function use(id: string, layers: readonly string[], as: "draft" | "record"): Sandbox {
  const sandbox = newSandbox(id, as === "draft" ? "creating" : "ready");
  if (as === "draft") sandbox.draft = { layers };
  else sandbox.record = { layers } as unknown as Sandbox["record"];
  sandboxes.push(sandbox);
  return sandbox;
}

describe("an upload", () => {
  it("is in place as a trusted module, with a manifest", async () => {
    await uploads.put("100-a", upload(imageOf("one"), { requires: ["000-b"], conflicts: ["100-c"] }));
    expect(files()).toEqual(["100-a.manifest.json", "100-a.squashfs"]);
    expect(statSync(join(dataDir, "modules/100-a.squashfs")).mode & 0o777).toBe(0o644);
    expect(await catalog.resolve("100-a")).toMatchObject({ requires: ["000-b"], conflicts: ["100-c"] });
    expect(await modules.get("100-a")).toMatchObject({ source: "upload", size: 4_096, used_by: [], problem: null });
  });

  it.each([
    ["another digest", () => upload(imageOf("x"), { sha256: "0".repeat(64) }), { code: "digest_mismatch" }],
    ["too many bytes", () => upload(Buffer.alloc(100_001)), { code: "body_too_large" }],
    ["no image", () => upload(Buffer.from("hello")), { code: "module_invalid" }],
    ["half an image", () => upload(imageOf("x").subarray(0, 2_000)), { code: "module_invalid", message: /cut off/ }],
    ["a requirement that is no name", () => upload(imageOf("x"), { requires: ["../x"] }), { code: "invalid_request" }],
    ["a body that breaks off", () => upload(imageOf("x"), { body: breakingOff() }), { code: "cancelled" }],
    ["a sender that is gone", () => upload(imageOf("x"), { signal: AbortSignal.abort() }), { code: "cancelled" }],
  ] as const)("with %s is refused, and leaves nothing", async (_, make, error) => {
    await expect(uploads.put("100-a", make())).rejects.toMatchObject(error);
    expect(files()).toEqual([]);
  });

  async function* breakingOff(): AsyncGenerator<Uint8Array> {
    yield await Promise.resolve(imageOf("x").subarray(0, 1_000));
    throw new Error("aborted");
  }

  describe("of an image that says what it is", () => {
    const defaults = { env: { A: "b" }, workdir: "/srv", user: "1000", entrypoint: ["a"], cmd: ["b"] };
    const about = { name: "100-a", builder: "mkmod from-oci", requires: ["000-b"], conflicts: ["100-c"], defaults };

    async function saying(mark: string, change: (image: Buffer) => Buffer = (image) => image): Promise<Buffer> {
      const path = join(dataDir, "image");
      writeFileSync(path, imageOf(mark));
      await appendTrailer(path, about);
      return change(readFileSync(path));
    }

    it("keeps that, after a removal too, and under another name", async () => {
      const { name: _, builder: source, ...said } = about;
      const image = await saying("one");
      for (const name of ["100-a", "100-a", "200-other"]) {
        await uploads.put(name, upload(image));
        expect(await modules.get(name)).toMatchObject({ ...said, name, source, size: image.length, problem: null });
        expect(await catalog.resolve(name)).toMatchObject(said);
        await modules.remove(name);
      }
    });

    it("goes by what the sender says where he says something", async () => {
      const image = await saying("one");
      await uploads.put("100-a", upload(image, { requires: ["000-x"] }));
      expect(await modules.get("100-a")).toMatchObject({ requires: ["000-x"], conflicts: ["100-c"], defaults });
      await uploads.put("100-a", upload(image, { requires: [], conflicts: [], replace: true }));
      expect(await modules.get("100-a")).toMatchObject({ requires: [], conflicts: [], defaults });
    });

    it.each<[string, (image: Buffer) => Buffer]>([
      ["cut off", (image) => Buffer.concat([image.subarray(0, 7_000), image.subarray(-64)])],
      ["of an absurd length", (image) => changed(image, 20, 255)],
      ["of another version", (image) => changed(image, 16, 2)],
      ["with another digest", (image) => changed(image, 40, 7)],
      ["with another text", (image) => changed(image, -20, 7)],
    ])("is refused with a manifest that is %s, and takes nothing away", async (_, change) => {
      await uploads.put("100-a", upload(imageOf("before")));
      const [before, wasThere] = [await modules.get("100-a"), files()];
      const image = await saying("one", change);
      const refused = { code: "module_invalid", message: /the manifest in its image/ };
      await expect(uploads.put("100-a", upload(image, { replace: true }))).rejects.toMatchObject(refused);
      await expect(uploads.put("100-b", upload(image))).rejects.toMatchObject(refused);
      expect([await modules.get("100-a"), files()]).toEqual([before, wasThere]);
    });

    /** With a byte of the end of the trailer replaced, or of the text before it. */
    function changed(image: Buffer, at: number, byte: number): Buffer {
      image[image.length - 64 + at] = byte;
      return image;
    }
  });

  it("replaces a module only when that was asked for, and only when no sandbox uses it", async () => {
    await uploads.put("100-a", upload(imageOf("one")));
    writeFileSync(join(dataDir, "modules/100-a.erofs"), "twin");
    trustByHand(join(dataDir, "modules"), "100-a");
    await expect(uploads.put("100-a", upload(imageOf("two")))).rejects.toMatchObject({ code: "module_exists" });
    const user = use("box", ["100-a"], "record");
    const replacing = (): Promise<unknown> => uploads.put("100-a", upload(imageOf("two"), { replace: true }));
    await expect(replacing()).rejects.toMatchObject({ code: "module_in_use", details: { used_by: ["box"] } });
    expect(files()).toEqual(["100-a.erofs", "100-a.manifest.json", "100-a.squashfs"]);
    user.state = "lost"; // such a one has no files any more
    await replacing();
    expect(files()).toEqual(["100-a.manifest.json", "100-a.squashfs"]);
    expect(readFileSync(join(dataDir, "modules/100-a.squashfs")).toString()).toContain("two");
    expect(await catalog.resolve("100-a")).toMatchObject({ format: "squashfs" });
  });

  it("is refused while there is another one of the same name, or more than a few", async () => {
    const open = new Map<string, () => void>();
    async function* waiting(name: string): AsyncGenerator<Uint8Array> {
      await new Promise<void>((done) => open.set(name, done));
      yield* inPieces(imageOf("x"));
    }
    const running = ["a", "b", "c", "d"].map((name) =>
      uploads.put(name, upload(imageOf("x"), { body: waiting(name) })),
    );
    await expect(uploads.put("e", upload(imageOf("x")))).rejects.toMatchObject({ code: "job_limit" });
    await expect.poll(() => open.size).toBe(4);
    await expect(modules.remove("a")).rejects.toMatchObject({ code: "module_in_use", message: /is being uploaded/ });
    open.get("d")?.();
    await running[3];
    await expect(uploads.put("a", upload(imageOf("x")))).rejects.toMatchObject({ code: "module_in_use" });
    for (const done of open.values()) done();
    await Promise.all(running);
    expect(files().filter((file) => file.endsWith(".squashfs"))).toHaveLength(4);
  });
});

describe("a removal", () => {
  beforeEach(() => uploads.put("100-a", upload(imageOf("one"))));

  it("takes images and manifest", async () => {
    await modules.remove("100-a");
    expect(files()).toEqual([]);
    await expect(modules.remove("100-a")).rejects.toMatchObject({ code: "module_not_found" });
  });

  it("is refused while a sandbox uses the module, or is being made of it", async () => {
    use("made", ["000-x", "100-a"], "record");
    use("being-made", ["100-a"], "draft");
    use("other", ["100-b"], "record");
    const users = ["being-made", "made"];
    expect((await modules.get("100-a")).used_by).toEqual(users);
    await expect(modules.remove("100-a")).rejects.toMatchObject({ code: "module_in_use", details: { used_by: users } });
    expect(await catalog.resolve("100-a")).toBeDefined();
  });

  it("and a create that begin together never both succeed", async () => {
    for (let ticks = 0; ticks < 12; ticks++) {
      if (!existsSync(join(dataDir, "modules/100-a.squashfs"))) await uploads.put("100-a", upload(imageOf("one")));
      const removing = modules.remove("100-a").then(
        () => "removed",
        (error: unknown) => (error as { code: string }).code,
      );
      for (let tick = 0; tick < ticks; tick++) await Promise.resolve();
      // as the stage of the layers does it
      const sandbox = use(`box-${ticks}`, ["100-a"], "draft");
      const found = await catalog.resolve("100-a").then(
        () => "found",
        (error: unknown) => (error as { code: string }).code,
      );
      const outcome = [await removing, found];
      expect([
        ["removed", "module_not_found"],
        ["module_in_use", "found"],
      ]).toContainEqual(outcome);
      sandboxes.splice(sandboxes.indexOf(sandbox), 1);
    }
  });
});

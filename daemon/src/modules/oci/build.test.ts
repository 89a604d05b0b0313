import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { SquashError } from "@squash/sdk/errors";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { runTool, type RunTool } from "../run-tool.js";
import { buildFromImage, type ImageBuildOptions } from "./build.js";
import { parsePlatform } from "./platform.js";
import { filesInDirectory } from "./stored-files.js";
import { loadStored } from "./stored-image.js";
import { layoutFiles, makeImage, makeIndex, writeFiles, type TestImage, type TestLayer } from "./testing/images.js";

let folder: string;
let dataDir: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "squash-build-"));
  dataDir = join(folder, "data");
});
afterEach(() => rmSync(folder, { recursive: true }));

/** Packers that write the names of what they get into the image; programs that unpack are the real ones. */
const run: RunTool = ([program, ...args], options) => {
  if (program === "sqfstar") {
    const image = args.find((arg) => arg.endsWith("image.squashfs"))!;
    // the tar file lies beside the packers' own directory
    const tar = readFileSync(join(image, "../../tree.tar"));
    writeFileSync(image, tar);
    return Promise.resolve("");
  }
  return runTool([program, ...args], options);
};

async function build(image: TestImage, options: Partial<ImageBuildOptions> = {}, name?: string) {
  const layout = mkdtempSync(join(folder, "layout-"));
  writeFiles(layout, layoutFiles(image, makeIndex([[null, image.manifest, name]]).bytes));
  const load = () => loadStored(filesInDirectory(layout), { platform: parsePlatform("linux/amd64"), reference: null });
  const usual = {
    dataDir,
    name: "x",
    formats: ["squashfs"],
    perLayer: false,
    builder: "a test",
    progress: () => {},
    run,
  } as const;
  return buildFromImage(load, { ...usual, ...options });
}

const imageOf = (layers: readonly TestLayer[], facts: Parameters<typeof makeImage>[1] = {}) =>
  makeImage(layers, { architecture: "amd64", ...facts });
const files = (): string[] =>
  existsSync(join(dataDir, "modules")) ? readdirSync(join(dataDir, "modules")).toSorted() : [];
const left = (): string[] => readdirSync(join(dataDir, "cache"));

const layers: readonly TestLayer[] = [
  { members: [{ name: "a" }, { name: "b" }, { name: "srv", type: "directory" }], compression: "gzip" },
  { members: [] },
  { members: [{ name: ".wh.a" }], compression: "zstd" },
];

describe("buildFromImage()", () => {
  it("makes one module of all layers, with the image's defaults in its manifest, and leaves nothing else", async () => {
    const config = {
      Env: ["PATH=/bin", "A=b=c", "1BAD=x", "NO"],
      WorkingDir: "/srv",
      User: "www:www",
      Entrypoint: ["/init"],
      Cmd: null,
    };
    const [manifest, more] = await build(await imageOf(layers, { config }));
    expect(more).toBeUndefined();
    expect(manifest).toMatchObject({
      name: "000-x",
      defaults: { env: { PATH: "/bin", A: "b=c" }, workdir: "/srv", user: "www", entrypoint: ["/init"], cmd: [] },
    });
    expect(JSON.parse(readFileSync(join(dataDir, "modules/000-x.manifest.json"), "utf8"))).toEqual(manifest);
    expect([files(), left()]).toEqual([["000-x.manifest.json", "000-x.squashfs"], []]);
  });

  it.each([
    { WorkingDir: "relative", User: "-x" },
    { WorkingDir: "/../x", User: "70000" },
    { WorkingDir: "/\0", User: "a b" },
    { WorkingDir: "/srv/absent" },
    null,
  ])("takes nothing for a default that nobody could ask for: %j", async (config) => {
    const [manifest] = await build(await imageOf(layers, { config: config as object }));
    expect(manifest?.defaults).toEqual({ env: {}, workdir: "", user: "", entrypoint: [], cmd: [] });
  });

  it("makes a module of each layer that has anything, in their order, the defaults with the topmost", async () => {
    const manifests = await build(await imageOf(layers), { perLayer: true, name: "100-x" });
    expect(manifests.map(({ name, defaults }) => [name, defaults !== undefined])).toEqual([
      ["100-x-layer-1", false],
      ["101-x-layer-2", true],
    ]);
    const hiding = [...layers, { members: [{ name: ".wh..wh..opq" }, { name: "c" }] }];
    const [only, more] = await build(await imageOf(hiding), { perLayer: true, name: "y" });
    expect([only?.name, more]).toEqual(["000-y-layer-1", undefined]);
  });

  it("gives the same bytes for the same image", async () => {
    const image = await imageOf(layers);
    const [one] = await build(image);
    const [two] = await build(image, { force: true });
    expect(two?.files).toEqual(one?.files);
  });

  it("names the module after the image, or wants a name", async () => {
    const image = await imageOf(layers);
    expect(await build(image, { name: null }, "ghcr.io/team/tool:1.2")).toMatchObject([{ name: "000-tool-1.2" }]);
    await expect(build(image, { name: null })).rejects.toMatchObject({ code: "invalid_request", message: /--name/ });
    await expect(build(image, { name: null }, "latest")).rejects.toMatchObject({ code: "invalid_request" });
  });

  it.each<[string, RegExp, readonly TestLayer[], Parameters<typeof makeImage>[1], Partial<ImageBuildOptions>]>([
    [
      "whose layers are others than its configuration says",
      /another than it should have/,
      layers,
      { diffIds: Array<string>(3).fill(`sha256:${"0".repeat(64)}`) },
      {},
    ],
    [
      "that is a bomb of gzip",
      /too large/,
      [{ members: [{ name: "a", content: Buffer.alloc(2 ** 22) }], compression: "gzip" }],
      {},
      { maxBytes: 2 ** 20 },
    ],
    [
      "that is a bomb of zstd",
      /too large/,
      [{ members: [{ name: "a", content: Buffer.alloc(2 ** 22) }], compression: "zstd" }],
      {},
      { maxBytes: 2 ** 20 },
    ],
    [
      "whose layers are too large together",
      /layer 2.*too large/,
      [
        { members: [{ name: "a", content: Buffer.alloc(700_000) }] },
        { members: [{ name: "b", content: Buffer.alloc(700_000) }] },
      ],
      {},
      { maxBytes: 2 ** 20 },
    ],
    ["without files", /there are no files in it/, [{ members: [] }], {}, {}],
    ["with names that climb", /layer 1: entry "\.\.\/x" is a path with/, [{ members: [{ name: "../x" }] }], {}, {}],
  ])("refuses an image %s, and leaves nothing", async (_what, message, refused, facts, options) => {
    await expect(build(await imageOf(refused, facts), options)).rejects.toMatchObject({
      code: "build_failed",
      message,
    });
    expect([files(), left()]).toEqual([[], []]);
  });

  it("refuses names that are taken before it packs, and takes a part of a stack away again", async () => {
    mkdirSync(join(dataDir, "modules"), { recursive: true });
    writeFileSync(join(dataDir, "modules/001-x-layer-2.erofs"), "mine");
    const image = await imageOf(layers);
    await expect(build(image, { perLayer: true })).rejects.toMatchObject({ message: /--force replaces it/ });
    expect(files()).toEqual(["001-x-layer-2.erofs"]);
    let packed = 0;
    const failing: RunTool = (argv, options) =>
      argv[0] === "sqfstar" && ++packed === 2
        ? Promise.reject(new SquashError("build_failed", "the disk is full"))
        : run(argv, options);
    await expect(build(image, { perLayer: true, name: "z", run: failing })).rejects.toThrow("the disk is full");
    expect(files()).toEqual(["001-x-layer-2.erofs"]);
  });

  it("ends when its caller gives up", async () => {
    await expect(build(await imageOf(layers), { signal: AbortSignal.abort() })).rejects.toThrow();
    expect([files(), left()]).toEqual([[], []]);
  });
});

import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { SquashError } from "@squash/sdk/errors";
import type { BuildJob } from "@squash/sdk/protocol";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { trustByHand } from "../../../test/support/modules.js";
import { Modules } from "../core/modules.js";
import { DirectoryCatalog } from "./catalog.js";
import { planJob } from "./job-kinds.js";
import { builds, type JobWorld } from "./job-plan.js";
import type { SnapshotSource } from "./promote.js";
import { packDirectory } from "./pack.js";
import type { RunTool } from "./run-tool.js";

let home: string;
let world: JobWorld;
beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), "squash-kinds-"));
  mkdirSync(join(home, "modules"));
  mkdirSync(join(home, "open/tree"), { recursive: true });
  mkdirSync(join(home, "open-not"));
  const catalog = new DirectoryCatalog(home, { defaultLayers: [] });
  const modules = new Modules(catalog, { all: () => [] });
  const unused = () => Promise.reject(new Error("no sandboxes here"));
  const sandboxes = { create: unused, exec: unused, setNetwork: unused, destroy: unused, find: () => null };
  world = {
    catalog,
    modules,
    sandboxes,
    captures: { take: unused, takeModule: unused },
    snapshots,
    dataDir: home,
    buildDirs: [join(home, "open"), "/nonexistent"],
  };
});
afterEach(() => rmSync(home, { recursive: true }));

const kept: string[] = [];

/** Sandbox "box" has a snapshot "one" on 000-base; its image is a text. */
const snapshots: SnapshotSource = {
  layersOf({ id, label }) {
    if (id === "box" && label === "one") return ["000-base"];
    throw new SquashError("snapshot_not_found", `Cannot find snapshot "${label}" of "${id}"`);
  },
  keep: () => () => kept.push("released"),
  write(_, output) {
    writeFileSync(join(home, output.path), "merged");
    return Promise.resolve();
  },
};

const sha256 = "0".repeat(64);
const code = (request: BuildJob): Promise<string> =>
  planJob(request, world).then(
    ({ module }) => module,
    (error: unknown) => `${(error as { code: string }).code}: ${(error as Error).message}`,
  );

describe("planJob()", () => {
  it("names the module as the command line does", async () => {
    expect(await code({ kind: "mkbase", base: "busybox" })).toBe("000-base-busybox");
    expect(await code({ kind: "mkbase", base: "debian", name: "mine", packages: ["git"] })).toBe("000-mine");
    expect(await code({ kind: "mkbase", base: "void", url: "https://example.org", sha256 })).toBe("000-base-void");
    expect(await code({ kind: "from-tar", name: "100-a", url: "https://example.org", sha256 })).toBe("100-a");
    expect(await code({ kind: "from-oci", reference: "team/tool:1.2" })).toBe("000-tool-1.2");
    expect(await code({ kind: "from-oci", reference: "tool:1", name: "200-mine" })).toBe("200-mine");
    expect(await code({ kind: "from-oci", layout: join(home, "open"), reference: "a/b:c" })).toBe("000-b-c");
    expect(await code({ kind: "from-sandbox", sandbox: "box", name: "900-box" })).toBe("900-box");
  });

  it.each([
    [{ kind: "mkbase", base: "alpine" }, /alpine needs url and sha256/],
    [{ kind: "mkbase", base: "busybox", url: "https://example.org", sha256 }, /takes no url/],
    [{ kind: "mkbase", base: "busybox", packages: ["git"] }, /are for debian/],
    [{ kind: "mkbase", base: "busybox", requires: ["../x"] }, /Cannot name a module/],
    [{ kind: "from-tar", name: "../a", url: "https://example.org", sha256 }, /Cannot name a module/],
    [{ kind: "convert", name: "../a", format: "erofs" }, /Cannot name a module/],
    [{ kind: "from-oci" }, /needs reference, layout or archive/],
    [{ kind: "from-oci", reference: "UPPER/x y" }, /Cannot read the image reference/],
    [{ kind: "from-oci", reference: "a", name: "../a" }, /Cannot name a module/],
    [{ kind: "from-oci", layout: "/a", archive: "/b" }, /exclude each other/],
    [{ kind: "from-oci", layout: "/a", insecure: true }, /are for registries/],
    [{ kind: "from-oci", archive: "/a", username: "u", password: "p" }, /are for registries/],
    [{ kind: "from-oci", archive: "/etc/passwd", name: "a" }, /no file below one of SQUASH_BUILD_DIRS/],
    [{ kind: "from-oci", layout: "/etc", name: "a" }, /no directory below one of SQUASH_BUILD_DIRS/],
    [{ kind: "from-oci", reference: "a", username: "u" }, /go together/],
    [{ kind: "from-oci", reference: "a", username: "u:v", password: "p" }, /no colon/],
    [{ kind: "from-oci", reference: "a", platform: "plan9" }, /plan9/],
    [{ kind: "from-sandbox", sandbox: "box", name: "a/b" }, /Cannot name a module/],
    [{ kind: "preset", preset: "absent" }, /Cannot find preset/],
  ] as const)("refuses %j", async (request, message) => {
    const answer = await code(request as unknown as BuildJob);
    expect(answer).toMatch(/^invalid_request: /);
    expect(answer).toMatch(message);
  });

  it("opens a directory below those that the operator opened only, wherever links lead", async () => {
    symlinkSync(join(home, "open-not"), join(home, "open/link"));
    symlinkSync(join(home, "open/tree"), join(home, "way-in"));
    for (const [path, allowed] of [
      ["open", true],
      ["open/tree", true],
      ["open/tree/../tree/.", true],
      ["way-in", true],
      ["open/link", false],
      ["open-not", false],
      ["open/../open-not", false],
      ["open/absent", false],
      [".", false],
    ] as const) {
      const answer = await code({ kind: "from-dir", name: "100-a", path: join(home, path) });
      expect([path, answer === "100-a"]).toEqual([path, allowed]);
    }
    world = { ...world, buildDirs: [] };
    expect(await code({ kind: "from-dir", name: "100-a", path: join(home, "open") })).toMatch(/^invalid_request/);
  });

  it("refuses a name that is taken at once, unless it may replace", async () => {
    writeFileSync(join(home, "modules/000-base-busybox.erofs"), "x");
    expect(await code({ kind: "mkbase", base: "busybox" })).toMatch(/^module_exists: /);
    expect(await code({ kind: "mkbase", base: "busybox", replace: true })).toBe("000-base-busybox");
  });
});

describe("builds()", () => {
  const run: RunTool = ([program, ...args]) => {
    const target = { mksquashfs: args[1], "mkfs.erofs": args.at(-2) }[program];
    if (target !== undefined) writeFileSync(target, `made by ${program}`);
    return Promise.resolve("");
  };
  const context = { signal: new AbortController().signal, progress: () => undefined };

  it("makes a trusted module whose digests are known, in the formats that are wished for", async () => {
    const wanted = { name: "100-a", builder: "a test", requires: ["000-b"] };
    await builds(wanted, { ...world, formats: ["squashfs"] }, (options) =>
      packDirectory(join(home, "open"), { ...options, run }),
    ).run(context);
    expect(existsSync(join(home, "modules/100-a.erofs"))).toBe(false);
    writeFileSync(join(home, "cache/verified.json"), "{}");
    expect(await world.catalog.resolve("100-a")).toMatchObject({ format: "squashfs", requires: ["000-b"] });
  });

  it("does not replace what a sandbox uses, and leaves nothing then", async () => {
    writeFileSync(join(home, "modules/100-a.erofs"), "x");
    trustByHand(join(home, "modules"), "100-a");
    const sandbox = { id: "box", state: "ready", record: { layers: ["100-a"] }, draft: null };
    const modules = new Modules(world.catalog, { all: () => [sandbox as never] });
    const plan = builds({ name: "100-a", builder: "a test", replace: true }, { ...world, modules }, (options) =>
      packDirectory(join(home, "open"), { ...options, run }),
    );
    await expect(plan.run(context)).rejects.toMatchObject({ code: "module_in_use" });
    expect(world.catalog.imagesOf("100-a")).toEqual(["erofs"]);
    expect(await world.catalog.resolve("100-a")).toMatchObject({ format: "erofs" });
  });
});

describe("a promotion", () => {
  const context = { signal: new AbortController().signal, progress: () => undefined };
  const request = { kind: "promote" as const, sandbox: "box", snapshot: "one", name: "200-x" };

  beforeEach(() => {
    writeFileSync(join(home, "modules/000-base.erofs"), "x");
    const defaults = { env: { A: "1" }, workdir: "/w", user: "", entrypoint: [], cmd: [] };
    trustByHand(join(home, "modules"), "000-base", { defaults });
  });

  it("makes a trusted erofs module of what the snapshot has, with what its modules say", async () => {
    const plan = await planJob(request, { ...world, formats: ["squashfs"] });
    expect(plan).toMatchObject({ kind: "promote", module: "200-x" });
    await plan.run(context);
    expect(kept.splice(0)).toEqual([]);
    await plan.release?.();
    expect(kept.splice(0)).toEqual(["released"]);
    expect(readdirSync(join(home, "modules")).toSorted()).toEqual([
      "000-base.erofs",
      "000-base.manifest.json",
      "200-x.erofs",
      "200-x.manifest.json",
    ]);
    expect(await world.catalog.resolve("200-x")).toMatchObject({
      format: "erofs",
      requires: ["000-base"],
      defaults: { env: { A: "1" }, workdir: "/w" },
    });
    expect(await world.catalog.facts("200-x")).toMatchObject({ source: "promote box@one" });
    expect(await code(request)).toMatch(/^module_exists: /);
    expect(await code({ ...request, replace: true })).toBe("200-x");
  });

  it.each([
    [{ name: "../x" }, /^invalid_request: Cannot name a module/],
    [{ name: "000-a" }, /^invalid_request: .*it would lie below; needed is a number above that of "000-base"/],
    [{ name: "000-base" }, /^invalid_request: .*the snapshot itself stands on it/],
    [{ snapshot: "never" }, /^snapshot_not_found: /],
  ])("with %j is refused at once", async (change, message) => {
    expect(await code({ ...request, ...change })).toMatch(message);
  });

  it("of a snapshot whose module is gone, or that cannot be written, leaves nothing", async () => {
    const failing = {
      ...snapshots,
      write: (...[, output]: Parameters<SnapshotSource["write"]>) => {
        writeFileSync(join(home, output.path), "half");
        return Promise.reject(new SquashError("snapshot_damaged", "Cannot use it"));
      },
    };
    const plan = await planJob(request, { ...world, snapshots: failing });
    await expect(plan.run(context)).rejects.toMatchObject({ code: "snapshot_damaged" });
    expect(readdirSync(join(home, "modules")).filter((name) => !name.startsWith("000"))).toEqual([]);
    rmSync(join(home, "modules/000-base.erofs"));
    expect(await code(request)).toMatch(/^module_not_found: /);
  });
});

import { describe, expect, it } from "vitest";
import { Content } from "./content.js";
import { apply, lineOf, type Operation } from "./operations.js";
import { Overlay } from "./overlay.js";
import { Replica } from "./replica.js";
import { differences, type Seen } from "./survey.js";

const options = { upperKind: "tmpfs" } as const;

/** `mkdir a` and the like; modes are 755. */
function made(overlay: Overlay, ...lines: readonly string[]): (string | null)[] {
  return lines.map((line) => {
    const [what = "", path = "", to = ""] = line.split(" ");
    return apply(overlay, { do: what, path, ...(to === "" ? { mode: 0o755 } : { to }) } as Operation);
  });
}

const paths = (overlay: Overlay): string[] => overlay.all().map(([path]) => path);

function lower(...lines: readonly string[]): Overlay {
  const overlay = new Overlay([], options);
  expect(made(overlay, ...lines).filter((one) => one !== null)).toEqual([]);
  return overlay;
}

const leaf = (overlay: Overlay, path: string): { links: number; mode: number } => {
  const node = overlay.mustFind(path);
  return { links: node.kind === "directory" ? 0 : node.links, mode: node.mode };
};

describe("the model of an overlay", () => {
  it("refuses what the kernel refuses", () => {
    const overlay = lower("mkdir d", "mkdir d/e", "create f", "symlink l nowhere", "pipe p");
    expect(
      made(overlay, "create f", "rmdir d", "rmdir f", "unlink d", "unlink none", "create none/x", "create f/x"),
    ).toEqual(["EEXIST", "ENOTEMPTY", "ENOTDIR", "EISDIR", "ENOENT", "ENOENT", "ENOTDIR"]);
    expect(made(overlay, "rename d d/x", "rename d/e d", "rename f d", "rename d f", "link d x", "create l/x")).toEqual(
      ["EINVAL", "ENOTEMPTY", "EISDIR", "ENOTDIR", "EPERM", "ENOENT"],
    );
    expect(apply(overlay, { do: "truncate", path: "p", size: 1 })).toBe("ENXIO");
    expect(apply(overlay, { do: "truncate", path: "l", size: 1 })).toBe("ELOOP");
    expect(apply(overlay, { do: "unattribute", path: "f", name: "user.x" })).toBe("ENODATA");
  });

  it("hides what was removed, and what a new directory stands in the place of", () => {
    const base = lower("mkdir d", "create d/old", "create f");
    const overlay = new Overlay([base.upper], options);
    expect(made(overlay, "remove d", "unlink f", "mkdir d", "create d/new")).toEqual([null, null, null, null]);
    expect(paths(overlay)).toEqual([".", "./d", "./d/new"]);
    expect(paths(new Overlay([base.upper], options))).toEqual([".", "./d", "./d/old", "./f"]);
    expect(made(overlay, "unlink d/new", "rmdir d", "mkdir d")).toEqual([null, null, null]);
    expect(paths(overlay)).toEqual([".", "./d"]);
  });

  it("moves no directory of a lower layer, and one of the upper", () => {
    const overlay = new Overlay([lower("mkdir d", "create d/x").upper], options);
    expect(made(overlay, "rename d e", "mkdir n", "create n/x", "rename n e", "rename d/x e/y")).toEqual([
      "EXDEV",
      null,
      null,
      null,
      null,
    ]);
    expect(paths(overlay)).toEqual([".", "./d", "./e", "./e/x", "./e/y"]);
  });

  it("breaks hard links of a lower layer when one is changed, and keeps those of the upper", () => {
    const overlay = new Overlay([lower("create a", "link a b").upper], options);
    expect(leaf(overlay, "b").links).toBe(2);
    apply(overlay, { do: "chmod", path: "a", mode: 0o600 });
    expect([leaf(overlay, "a"), leaf(overlay, "b")]).toEqual([
      { links: 1, mode: 0o600 },
      { links: 2, mode: 0o755 },
    ]);
    expect(made(overlay, "link a c", "rename c a")).toEqual([null, null]); // one file: nothing is done
    expect(leaf(overlay, "a").links).toBe(2);
  });

  it.each(["ext4", "tmpfs"] as const)(
    "with %s, takes only the time that ext4 changes for one that the kernel chose, when it refuses to move a directory",
    (upperKind) => {
      const base = lower("mkdir low", "create low/one", "mkdir low/full", "create low/full/x");
      const overlay = new Overlay([base.upper], { upperKind });
      made(overlay, "unlink low/one", "mkdir low/one", "mkdir new", "mkdir new/one", "mkdir full", "create full/x");
      for (const [path] of overlay.all()) apply(overlay, { do: "touch", path, seconds: 1, nanoseconds: 0 });
      const chosen = (line: string): string[] => {
        expect(made(overlay, line)).toEqual(["ENOTEMPTY"]);
        return overlay.all().flatMap(([path, { mtime }]) => (mtime === null ? [path] : []));
      };
      expect(chosen("rename new/one full")).toEqual([]); // no whiteout was to stay
      expect(chosen("rename low/one low/full")).toEqual([]); // overlayfs looks into what it merges
      expect(chosen("rename low/one full")).toEqual(upperKind === "ext4" ? ["./low"] : []);
    },
  );

  it("looks into what was copied from a layer that is gone", () => {
    const gone = lower("mkdir d", "create d/x");
    const base = lower("create one");
    const before = new Overlay([gone.upper, base.upper], { upperKind: "ext4" });
    made(before, "create d/y", "unlink one", "mkdir one");
    const overlay = new Overlay([base.upper], { upperKind: "ext4", upper: before.upper });
    apply(overlay, { do: "touch", path: ".", seconds: 1, nanoseconds: 0 });
    expect(made(overlay, "rename one d")).toEqual(["ENOTEMPTY"]);
    expect(overlay.upper.mtime).toBe("1.000000000");
  });

  it("tells of any other time that is not the one it knows", () => {
    const overlay = lower("mkdir d", "create d/x");
    const seen = (path: string, changed: Partial<Seen> = {}): Seen => {
      const { kind, mode } = overlay.mustFind(path);
      const type = kind === "directory" ? 0o40000 : 0o100000;
      const rest = {
        uid: 0,
        gid: 0,
        links: 1,
        size: 0,
        data: 0,
        hash: new Content().hash(),
        error: 0,
        target: "",
        attributes: [],
      };
      return {
        ...rest,
        path,
        mode: type | mode,
        mtime: "5.000000000",
        ...(kind === "directory" && { hash: 0 }),
        ...changed,
      };
    };
    const files = (): Seen[] => [seen("."), seen("./d"), seen("./d/x")];
    expect(differences(overlay, files())).toEqual([]);
    expect(differences(overlay, files())).toEqual([]);
    const later = { mtime: "6.000000000" };
    expect(differences(overlay, [seen("."), seen("./d", later), seen("./d/x", later)])).toEqual([
      './d: mtime is "6.000000000", not "5.000000000"',
      './d/x: mtime is "6.000000000", not "5.000000000"',
    ]);
  });

  it("writes operations as lines", () => {
    expect(lineOf({ do: "write", path: "a b", offset: 1, length: 2, seed: 3 })).toBe("write\ta b\t1\t2\t3");
  });
});

describe("the model of a sandbox", () => {
  it("goes back to any snapshot, forks, and keeps what was written when a module comes and goes", () => {
    const contents = new Map([
      ["100-a", lower("mkdir d", "create d/base").upper],
      ["200-b", lower("create added").upper],
    ]);
    const replica = new Replica("x", { modules: ["100-a"], images: [] }, { contents, ...options });
    made(replica.overlay, "create one", "unlink d/base");
    replica.snapshot("s1");
    made(replica.overlay, "unlink one");
    replica.restore("s1");
    replica.toggle("200-b");
    made(replica.overlay, "unlink added", "create two");
    expect(paths(replica.overlay)).toEqual([".", "./d", "./one", "./two"]);
    replica.toggle("200-b");
    replica.snapshot("s2");
    expect(replica.history).toEqual([
      ["s1", null],
      ["s2", "s1"],
    ]);
    const fork = new Replica("y", replica.moment("s1"), { contents, ...options });
    expect(paths(fork.overlay)).toEqual([".", "./d", "./one"]);
    replica.forget("s1");
    expect(replica.history).toEqual([["s2", null]]);
    for (let round = 0; round < 20; round++) {
      made(replica.overlay, `create r${round}`, `unlink r${round - 2}`);
      replica.snapshot(`r${round}`);
      replica.restore(`r${round}`);
    }
    expect(paths(replica.overlay)).toEqual([".", "./d", "./one", "./r18", "./r19", "./two"]);
  });
});

describe("the model's bytes", () => {
  it("are cut off and filled with zeroes", () => {
    const content = new Content();
    content.write(0, 5000, 1);
    content.truncate(4100);
    content.truncate(6000);
    const other = new Content();
    other.write(0, 4100, 1);
    expect(content.hash()).not.toBe(new Content().hash());
    expect([content.hash(), content.size, content.written]).toEqual([other.hash(), 6000, 8192]);
    content.truncate(0);
    expect(content.hash()).toBe(new Content().hash());
  });
});

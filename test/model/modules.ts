import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { trustByHand } from "../support/modules.js";
import { repositoryRoot } from "../support/root.js";
import type { Directory } from "./nodes.js";
import { apply, lineOf, type Operation } from "./operations.js";
import { Overlay } from "./overlay.js";
import { differences, parseReport } from "./survey.js";

/** where sandboxes have `tree.c`, and the files that it works on */
export const program = "/opt/tree";
export const place = "/m";

const baseFiles: readonly Operation[] = [
  { do: "mkdir", path: "low", mode: 0o755 },
  { do: "create", path: "low/one", mode: 0o644 },
  { do: "write", path: "low/one", offset: 10, length: 9000, seed: 1 },
  { do: "link", path: "low/one", to: "low/two" },
  { do: "mkdir", path: "low/deep", mode: 0o700 },
  { do: "create", path: "low/deep/1", mode: 0o600 },
  { do: "chown", path: "low/deep/1", uid: 12, gid: 34 },
  { do: "mkdir", path: "dir", mode: 0o711 },
  { do: "pipe", path: "dir/x", mode: 0o620 },
  { do: "symlink", path: "b", target: "nowhere" },
];
const addedFiles: readonly Operation[] = [
  { do: "mkdir", path: "dir", mode: 0o750 },
  { do: "create", path: "dir/x", mode: 0o640 },
  { do: "write", path: "dir/x", offset: 0, length: 5000, seed: 9 },
  { do: "create", path: "low", mode: 0o604 },
  { do: "create", path: "top", mode: 0o600 },
  { do: "mkdir", path: "a", mode: 0o755 },
];

/** Modules for a model: `150-files`, which has the program, too, and `300-more`, which covers some of its files. Returns what is in them. */
export function makeModelModules(folder: string): ReadonlyMap<string, Directory> {
  mkdirSync(folder, { recursive: true });
  const scratch = mkdtempSync(join(tmpdir(), "squash-model-"));
  try {
    const tree = join(scratch, "tree");
    execFileSync("musl-gcc", [
      ...["-static", "-O2", "-Wall", "-Wextra", "-Werror", "-o", tree],
      join(repositoryRoot, "test/model/tree.c"),
    ]);
    const make = (name: string, files: readonly Operation[]): [string, Directory] => {
      const root = join(scratch, name);
      mkdirSync(join(root, place), { recursive: true });
      mkdirSync(join(root, "opt"));
      if (name === "150-files") execFileSync("cp", [tree, join(root, program)]);
      const directory = fill(tree, join(root, place), files);
      pack(root, join(folder, name));
      trustByHand(folder, name);
      return [name, directory];
    };
    return new Map([make("150-files", baseFiles), make("300-more", addedFiles)]);
  } finally {
    rmSync(scratch, { recursive: true });
  }
}

function fill(tree: string, root: string, files: readonly Operation[]): Directory {
  const overlay = new Overlay([], { upperKind: "tmpfs" });
  for (const one of files) if (apply(overlay, one) !== null) throw new Error(`cannot make ${lineOf(one)}`);
  const touched: Operation[] = overlay
    .all()
    .map(([path]) => ({ do: "touch", path, seconds: 1_700_000_000, nanoseconds: 0 }));
  for (const one of touched) apply(overlay, one);
  const input = [...files, ...touched].map((one) => `${lineOf(one)}\n`).join("");
  const { results, files: seen } = parseReport(execFileSync(tree, [root], { input, encoding: "utf8" }));
  const wrong = [...results.filter((one) => one !== null), ...differences(overlay, seen)];
  if (wrong.length > 0) throw new Error(`the model's module is not as it should be: ${wrong.join("; ")}`);
  return overlay.upper;
}

function pack(root: string, image: string): void {
  const quiet = { stdio: "ignore" } as const;
  execFileSync(
    "mksquashfs",
    [root, `${image}.squashfs`, "-noappend", "-quiet", "-no-progress", "-comp", "zstd"],
    quiet,
  );
  execFileSync("mkfs.erofs", ["-zlz4", `${image}.erofs`, root], quiet);
  if (statSync(`${image}.erofs`).size === 0) throw new Error("mkfs.erofs made nothing");
}

import { execFileSync } from "node:child_process";
import { chmodSync, copyFileSync, existsSync, mkdirSync, realpathSync, statSync } from "node:fs";
import { dirname, join } from "node:path";

/** Copies programs of this machine with the libraries that they need into a root, to where they are here, or a single one to `target`. */
export function takePrograms(root: string, paths: readonly string[], target?: string): void {
  for (const each of [...paths, ...librariesOf(paths)]) {
    const to = join(root, target !== undefined && paths.includes(each) ? target : each);
    if (existsSync(to)) continue;
    mkdirSync(dirname(to), { recursive: true });
    copyFileSync(realpathSync(each), to);
    chmodSync(to, statSync(each).mode & 0o7777);
  }
}

/** Paths of the libraries that programs or libraries of this machine need. */
export function librariesOf(paths: readonly string[]): string[] {
  const text = execFileSync("ldd", [...paths], { encoding: "utf8" });
  return [...new Set([...text.matchAll(/(?:=> )?(\/\S+) \(0x/g)].map((match) => match[1] ?? ""))];
}

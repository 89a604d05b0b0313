import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { trustByHand } from "./modules.js";
import { repositoryRoot } from "./root.js";

const program = "/usr/bin/curl";
const cache = join(repositoryRoot, "build/test-curl");

/** Puts the machine's curl, with all that it needs, into a folder of modules, as `300-curl`. It finds names as programs of a distribution do. */
export function ensureCurlModule(folder: string): void {
  mkdirSync(folder, { recursive: true });
  const target = join(folder, "300-curl.squashfs");
  if (!existsSync(target)) copyFileSync(build(), target);
  trustByHand(folder, "300-curl");
}

function build(): string {
  const files = [program, ...libraries()];
  const hash = createHash("sha256");
  for (const file of files) hash.update(file).update(readFileSync(file));
  const path = join(cache, `${hash.digest("hex").slice(0, 16)}.squashfs`);
  if (existsSync(path)) return path;
  const root = `${path}.root-${process.pid}`;
  for (const file of files) {
    mkdirSync(dirname(join(root, file)), { recursive: true });
    copyFileSync(realpathSync(file), join(root, file));
  }
  mkdirSync(join(root, "etc"), { recursive: true });
  writeFileSync(join(root, "etc/nsswitch.conf"), "hosts: files dns\n");
  const draft = `${path}.draft-${process.pid}`;
  execFileSync("mksquashfs", [root, draft, "-noappend", "-quiet", "-no-progress", "-all-root", "-comp", "zstd"], {
    stdio: "ignore",
  });
  rmSync(root, { recursive: true });
  renameSync(draft, path);
  return path;
}

/** What it is linked to, and what the C library opens by itself to find names. */
function libraries(): string[] {
  const text = execFileSync("ldd", [program], { encoding: "utf8" });
  const linked = [...text.matchAll(/(?:=> )?(\/\S+) \(0x/g)].map((match) => match[1] ?? "");
  const libc = linked.find((path) => path.includes("libc.so")) ?? "";
  const services = ["libnss_files.so.2", "libnss_dns.so.2"].map((name) => join(dirname(libc), name));
  return [...linked, ...services.filter((path) => existsSync(path))];
}

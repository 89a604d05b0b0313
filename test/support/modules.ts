import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  chmodSync,
  copyFileSync,
  existsSync,
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { isSquashError, type Client, type PutOptions } from "@squash/sdk";
import { repositoryRoot } from "./root.js";

const cache = join(repositoryRoot, "build/test-modules");
const busybox = "/bin/busybox";

/** Puts the tests' modules into a folder: `000-base-test`, a small BusyBox root, and `100-extra`, a layer with a few files. */
export function ensureTestModules(folder: string): void {
  mkdirSync(folder, { recursive: true });
  buildOnce("000-base-test", fillBase);
  buildOnce("100-extra", fillExtra);
  for (const name of readdirSync(cache)) {
    if (!/\.(squashfs|erofs)$/.test(name) || existsSync(join(folder, name))) continue;
    try {
      linkSync(join(cache, name), join(folder, name));
    } catch {
      copyFileSync(join(cache, name), join(folder, name)); // another filesystem
    }
  }
  for (const name of ["000-base-test", "100-extra"]) trustByHand(folder, name);
}

/** Writes the manifest without which no image is mounted, for those that a test has put into a folder of modules. */
export function trustByHand(folder: string, name: string, more: Readonly<Record<string, unknown>> = {}): void {
  const files = ["squashfs", "erofs"]
    .map((format) => `${name}.${format}`)
    .filter((file) => existsSync(join(folder, file)))
    .map((file) => {
      const bytes = readFileSync(join(folder, file));
      return [file, { size: bytes.length, sha256: createHash("sha256").update(bytes).digest("hex") }];
    });
  const manifest = {
    schema: 1,
    name,
    built_at: "2026-01-01T00:00:00Z",
    builder: "a test",
    files: Object.fromEntries(files) as unknown,
    ...more,
  };
  const [path, text] = [join(folder, `${name}.manifest.json`), JSON.stringify(manifest)];
  if (existsSync(path) && readFileSync(path, "utf8") === text) return; // the disk may be full
  writeFileSync(path, text);
}

function buildOnce(name: string, fill: (root: string) => void): void {
  if (existsSync(join(cache, `${name}.squashfs`))) return;
  const root = join(cache, `${name}.root-${process.pid}`);
  mkdirSync(root, { recursive: true });
  fill(root);
  const quiet = { stdio: "ignore" } as const;
  const draft = join(cache, `${name}.draft-${process.pid}`);
  execFileSync("mksquashfs", [root, draft, "-noappend", "-quiet", "-no-progress", "-all-root", "-comp", "zstd"], quiet);
  execFileSync("mkfs.erofs", ["-zlz4", "--all-root", `${draft}.erofs`, root], quiet);
  rmSync(root, { recursive: true });
  renameSync(`${draft}.erofs`, join(cache, `${name}.erofs`));
  renameSync(draft, join(cache, `${name}.squashfs`));
}

function fillBase(root: string): void {
  for (const name of [
    "bin",
    "etc/profile.d",
    "root",
    "tmp",
    "proc",
    "sys",
    "dev",
    "run",
    "usr/bin",
    "usr/sbin",
    "var/tmp",
    "home/user",
  ]) {
    mkdirSync(join(root, name), { recursive: true });
  }
  chmodSync(join(root, "tmp"), 0o1777);
  copyFileSync(busybox, join(root, "bin/busybox"));
  chmodSync(join(root, "bin/busybox"), 0o755);
  for (const applet of execFileSync(busybox, ["--list"], { encoding: "utf8" }).trim().split("\n")) {
    if (applet !== "busybox") symlinkSync("busybox", join(root, "bin", applet));
  }
  writeFileSync(join(root, "etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n");
  writeFileSync(join(root, "etc/group"), "root:x:0:\nuser:x:1000:\nextra:x:2000:user\n");
}

function fillExtra(root: string): void {
  mkdirSync(join(root, "opt/extra"), { recursive: true });
  mkdirSync(join(root, "etc/profile.d"), { recursive: true });
  writeFileSync(join(root, "opt/extra/file"), "from the extra layer\n");
  writeFileSync(
    join(root, "etc/profile.d/extra.sh"),
    'export EXTRA="from profile.d"\nexport PATH="$PATH:/opt/extra/bin"\n',
  );
  mkdirSync(join(root, "opt/extra/bin"));
  writeFileSync(join(root, "opt/extra/bin/extra-tool"), '#!/bin/sh\necho tool "$@"\n', { mode: 0o755 });
}

/** Sends an image; returns "taken", or the code of the refusal. */
export async function sendModule(
  client: Client,
  name: string,
  bytes: Buffer,
  options: PutOptions & { readonly digest?: string } = {},
): Promise<string> {
  const { digest = createHash("sha256").update(bytes).digest("hex"), ...rest } = options;
  const content = (async function* () {
    for (let at = 0; at < bytes.length; at += 65_536) yield await Promise.resolve(bytes.subarray(at, at + 65_536));
  })();
  return client.putModule(name, { content, size: bytes.length, sha256: digest }, rest).then(
    () => "taken",
    (error: unknown) => (isSquashError(error) ? error.code : Promise.reject(error as Error)),
  );
}

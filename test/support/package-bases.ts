import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  chmodSync,
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { trustByHand } from "./modules.js";
import { takePrograms } from "./programs.js";

/** A package of one program, which prints its name and version. */
export interface TestPackage {
  readonly name: string;
  readonly version: string;
  /** run after it is unpacked, where there is something */
  readonly script?: string;
}

const quiet = { stdio: "ignore" } as const;
const aptPrograms = ["apt-get", "dpkg", "dpkg-deb", "dpkg-split", "dpkg-query", "tar"];
const programOf = ({ name, version }: TestPackage): string => `#!/bin/sh\necho "${name} version ${version}"\n`;

/** A base with this machine's own apt and dpkg, on a BusyBox, that is set up for one repository. One of its directories may have a time. */
export function makeAptBase(folder: string, name: string, repository: string, libTimeS?: number): void {
  makeBase(folder, name, (root) => {
    for (const program of aptPrograms)
      takePrograms(root, [execFileSync("which", [program], { encoding: "utf8" }).trim()]);
    for (const method of ["http", "store"]) takePrograms(root, [`/usr/lib/apt/methods/${method}`]);
    for (const directory of [
      "lib/dpkg/info",
      "lib/dpkg/updates",
      "lib/apt/lists/partial",
      "cache/apt/archives/partial",
    ])
      mkdirSync(join(root, "var", directory), { recursive: true });
    cpSync("/usr/share/dpkg", join(root, "usr/share/dpkg"), { recursive: true });
    mkdirSync(join(root, "etc/apt/apt.conf.d"), { recursive: true });
    mkdirSync(join(root, "etc/apt/sources.list.d"), { recursive: true });
    mkdirSync(join(root, "var/log/apt"), { recursive: true });
    writeFileSync(join(root, "var/lib/dpkg/status"), "");
    writeFileSync(join(root, "etc/apt/sources.list"), `deb [trusted=yes] ${repository} ./\n`);
    for (const applet of ["ldconfig", "start-stop-daemon"])
      if (!existsSync(join(root, "bin", applet))) symlinkSync("true", join(root, "bin", applet));
    if (libTimeS !== undefined) utimesSync(join(root, "var/lib"), libTimeS, libTimeS);
  });
}

/** A base with a package manager as small as can be, under the name of Alpine's. It tries to reach what it should not before it begins. */
export function makeApkBase(folder: string, name: string, repository: string, forbidden: string): void {
  const script = `#!/bin/sh
[ "$1" = add ] || exit 2
shift
curl -sf --max-time 2 -o /reached ${forbidden} || rm -f /reached
for package; do
  case $package in -*) continue ;; esac
  echo "fetching $package"
  curl -sf --max-time 5 -o /tmp/package.tar "$(cat /etc/apk/repositories)/$package.tar" || { echo "$package: no such package"; exit 1; }
  tar -x -f /tmp/package.tar -C /
  if [ -x /post-install ]; then /post-install || exit 1; rm /post-install; fi
done
mkdir -p /var/cache/apk /lib/apk/db
touch /var/cache/apk/used /lib/apk/db/installed
`;
  makeBase(folder, name, (root) => {
    // BusyBox's own cannot ask for names where it is linked statically
    takePrograms(root, [execFileSync("which", ["curl"], { encoding: "utf8" }).trim()]);
    mkdirSync(join(root, "sbin"), { recursive: true });
    mkdirSync(join(root, "etc/apk"), { recursive: true });
    writeFileSync(join(root, "sbin/apk"), script, { mode: 0o755 });
    writeFileSync(join(root, "etc/apk/repositories"), `${repository}\n`);
  });
}

/** Makes a repository for both: `Packages` with `.deb` files for apt, and `.tar` files. */
export function makeRepository(folder: string, packages: readonly TestPackage[]): void {
  const listed: string[] = [];
  for (const each of packages) {
    const root = mkdtempSync(join(tmpdir(), "sqt-package-"));
    mkdirSync(join(root, "usr/bin"), { recursive: true });
    writeFileSync(join(root, "usr/bin", each.name), programOf(each), { mode: 0o755 });
    if (each.script !== undefined)
      writeFileSync(join(root, "post-install"), `#!/bin/sh\n${each.script}\n`, { mode: 0o755 });
    execFileSync("tar", ["--owner=0", "--group=0", "-cf", join(folder, `${each.name}.tar`), "-C", root, "."]);
    rmSync(join(root, "post-install"), { force: true });
    const control = `Package: ${each.name}\nVersion: ${each.version}\nArchitecture: all\nMaintainer: a test <test@example.org>\nDescription: a test\n`;
    mkdirSync(join(root, "DEBIAN"));
    writeFileSync(join(root, "DEBIAN/control"), control);
    if (each.script !== undefined)
      writeFileSync(join(root, "DEBIAN/postinst"), `#!/bin/sh\n${each.script}\n`, { mode: 0o755 });
    const file = `${each.name}_${each.version}_all.deb`;
    execFileSync("dpkg-deb", ["--root-owner-group", "--build", root, join(folder, file)], quiet);
    const bytes = readFileSync(join(folder, file));
    listed.push(`${control}Filename: ./${file}\nSize: ${bytes.length}\nSHA256: ${sha256(bytes)}\n`);
    rmSync(root, { recursive: true });
  }
  const text = listed.join("\n");
  writeFileSync(join(folder, "Packages"), text);
  const sums = `SHA256:\n ${sha256(Buffer.from(text))} ${Buffer.byteLength(text)} Packages\n`;
  writeFileSync(join(folder, "Release"), `Date: Thu, 01 Jan 2026 00:00:00 UTC\n${sums}`);
}

function makeBase(folder: string, name: string, fill: (root: string) => void): void {
  const root = mkdtempSync(join(tmpdir(), "sqt-base-"));
  for (const path of ["bin", "etc", "root", "tmp", "proc", "sys", "dev", "run", "usr/bin", "var/tmp", "var/cache"])
    mkdirSync(join(root, path), { recursive: true });
  chmodSync(join(root, "tmp"), 0o1777);
  chmodSync(root, 0o755);
  copyFileSync("/bin/busybox", join(root, "bin/busybox"));
  chmodSync(join(root, "bin/busybox"), 0o755);
  for (const applet of execFileSync("/bin/busybox", ["--list"], { encoding: "utf8" }).trim().split("\n"))
    if (!["busybox", "dpkg", "dpkg-deb", "tar"].includes(applet)) symlinkSync("busybox", join(root, "bin", applet));
  writeFileSync(join(root, "etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n");
  writeFileSync(join(root, "etc/group"), "root:x:0:\n");
  fill(root);
  if (!existsSync(join(root, "usr/bin/tar"))) symlinkSync("/bin/busybox", join(root, "bin/tar"));
  mkdirSync(folder, { recursive: true });
  execFileSync("mkfs.erofs", ["--all-root", join(folder, `${name}.erofs`), root], quiet);
  rmSync(root, { recursive: true });
  trustByHand(folder, name);
}

function sha256(bytes: Buffer): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/** Names of the files in a directory that no test has put there. */
export function scratchOf(folder: string): string[] {
  return existsSync(folder) ? readdirSync(folder).filter((name) => name.startsWith("mkbase-")) : [];
}

import { access, chmod, copyFile, lutimes, mkdir, readdir, symlink, writeFile } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import { SquashError } from "@squash/sdk/errors";
import { Cleanup } from "../cleanup.js";
import { packDirectory, type ModuleManifest } from "../pack.js";
import { runTool } from "../run-tool.js";
import { isStaticProgram } from "../static-program.js";
import { scratchDirectory, type BaseOptions } from "./base.js";

const programs = ["/bin/busybox", "/usr/bin/busybox", "/bin/busybox.static"];
const directories = [
  "bin dev etc home lib media mnt opt proc root run sbin srv sys tmp usr",
  "usr/bin usr/lib usr/local usr/local/bin usr/sbin var var/cache var/lib var/log var/spool var/tmp",
].flatMap((line) => line.split(" "));
const modes: Readonly<Record<string, number>> = { tmp: 0o1777, "var/tmp": 0o1777, root: 0o700 };

const profile = `export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
umask 022
for script in /etc/profile.d/*.sh; do
  if [ -r "$script" ]; then . "$script"; fi
done
unset script
`;
/** 2020-01-01, so that the same busybox gives the same bytes */
const fileTime = 1_577_836_800;

const files: Readonly<Record<string, string>> = {
  "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n",
  "etc/group": "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n",
  "etc/hosts": "127.0.0.1 localhost\n::1 localhost\n",
  "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
  "etc/profile": profile,
  "etc/shells": "/bin/sh\n/bin/ash\n",
  "etc/os-release": 'ID=busybox\nNAME="BusyBox"\nPRETTY_NAME="BusyBox"\n',
};

/** Builds a base of nothing but the host's own busybox; needs no network. Throws `build_failed`. */
export async function buildBusybox(options: BaseOptions): Promise<ModuleManifest> {
  await using cleanup = new Cleanup();
  const run = options.run ?? runTool;
  const program = await findBusybox();
  const root = join(await scratchDirectory(options.dataDir, cleanup), "root");
  for (const directory of ["", ...directories, "etc/profile.d"]) {
    await mkdir(join(root, directory));
    await chmod(join(root, directory), modes[directory] ?? 0o755); // whatever the umask is
  }
  await copyFile(program, join(root, "bin/busybox"));
  await chmod(join(root, "bin/busybox"), 0o755);
  const deadline = { deadlineMs: 10_000, ...(options.signal === undefined ? {} : { signal: options.signal }) };
  const applets = await run([program, "--list-full"], { op: "list the applets of", target: program, ...deadline });
  const links = applets.split("\n").filter((applet) => /^[\w.\-/[]+$/.test(applet) && !applet.includes(".."));
  for (const applet of links) await linkApplet(root, applet);
  for (const [file, content] of Object.entries(files)) {
    await writeFile(join(root, file), content);
    await chmod(join(root, file), 0o644);
  }
  await setTimes(root);
  options.progress(`packing ${program} with ${links.length} applets`);
  return await packDirectory(root, options);
}

/** Path of the host's busybox. Throws `build_failed` when it has none, or one that needs libraries. */
export async function findBusybox(): Promise<string> {
  for (const program of programs) {
    const exists = await access(program).then(
      () => true,
      () => false,
    ); // whatever is wrong with it, it is of no use
    if (exists && (await isStaticProgram(program))) return program;
  }
  const message =
    'Cannot find busybox: no static one is installed; install the Debian package "busybox-static" (apt-get install busybox-static)';
  throw new SquashError("build_failed", message);
}

async function linkApplet(root: string, applet: string): Promise<void> {
  const path = join(root, applet);
  await mkdir(dirname(path), { recursive: true });
  try {
    await symlink(relative(dirname(path), join(root, "bin/busybox")), path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error; // an applet named busybox
  }
}

async function setTimes(root: string): Promise<void> {
  const paths = await readdir(root, { recursive: true });
  for (const path of ["", ...paths]) await lutimes(join(root, path), fileTime, fileTime);
}

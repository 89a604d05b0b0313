import { constants } from "node:fs";
import { access, statfs } from "node:fs/promises";
import { release } from "node:os";
import { dirname, join } from "node:path";
import type { DoctorCheck } from "@squash/sdk/protocol";
import type { UpperBackend } from "../core/ports.js";
import { mappableFormats } from "../kernel/image-formats.js";
import { findBusybox } from "../modules/bases/busybox.js";
import { DirectoryCatalog } from "../modules/catalog.js";
import { packageOf } from "../modules/run-tool.js";
import { findPool, poolImage } from "../store/pool-image.js";
import { check, readOptional, type Finding } from "./check.js";

const leastFreeBytes = 1024 ** 3;
const searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".split(":");

/** Magic numbers of file systems. Source: statfs(2) */
const filesystemNames: Readonly<Record<number, string>> = {
  0xef53: "ext4",
  0x58465342: "xfs",
  0x9123683e: "btrfs",
  0x01021994: "tmpfs",
  0x794c7630: "overlayfs",
  0x6969: "nfs",
  0x2fc12fc1: "zfs",
};

/** What builders start, and what is lost without it. */
const tools: Readonly<Record<string, string>> = {
  mksquashfs: "no module can be built",
  sqfstar: "no base can be built from a root file system",
  unsquashfs: "no erofs image can be built from a root file system",
  "mkfs.erofs": 'mkbase works with "--format squashfs" only',
  mmdebstrap: '"mkbase debian" does not work',
  "mkfs.ext4": 'SQUASH_UPPER_BACKEND "loop" does not work',
};

/** What squashd needs of the machine's disk and programs. */
export function hostChecks(settings: {
  readonly dataDir: string;
  readonly runDir: string;
  readonly hostBinary: string;
  readonly upperBackend: UpperBackend;
}): Promise<DoctorCheck[]> {
  const { dataDir, runDir, hostBinary, upperBackend } = settings;
  return Promise.all([
    check("sq-host", true, () => executable(hostBinary)),
    check("data directory", true, () => writable(dataDir, "SQUASH_DATA_DIR")),
    check("free space", false, () => freeSpace(dataDir)),
    check("run directory", true, () => writable(runDir, "SQUASH_RUN_DIR")),
    check("base module", false, () => baseModule(dataDir)),
    check("busybox", false, busybox),
    ...(upperBackend === "btrfs" ? [check("btrfs", true, () => btrfs(dataDir))] : []),
    ...Object.entries(tools).map(([tool, cost]) => check(tool, false, () => installed(tool, cost))),
  ]);
}

/** What uppers on the pool need. */
async function btrfs(dataDir: string): Promise<Finding> {
  const place = await findPool(await nearestExisting(dataDir));
  const known = /\tbtrfs$/m.test((await readOptional("/proc/filesystems")) ?? "");
  const module = await readOptional(`/lib/modules/${release()}/modules.dep`);
  if (!known && module?.includes("/btrfs.ko") !== true)
    return {
      ok: false,
      found: "the kernel has none",
      advice: "install the kernel's btrfs, or set SQUASH_UPPER_BACKEND to loop",
    };
  if (place.exists || place.kind === "directory") {
    const found = place.kind === "image" ? join(dataDir, poolImage) : `${dataDir} itself`;
    return { ok: true, found };
  }
  return installed("mkfs.btrfs", 'SQUASH_UPPER_BACKEND "btrfs" does not work');
}

async function executable(path: string): Promise<Finding> {
  const ok = await can(path, constants.X_OK);
  return {
    ok,
    found: ok ? path : `"${path}" is missing or not executable`,
    advice: "npm run build:native, or set SQUASH_HOST_BIN",
  };
}

async function writable(path: string, setting: string): Promise<Finding> {
  const existing = await nearestExisting(path);
  const ok = await can(existing, constants.W_OK | constants.X_OK);
  const found = existing === path ? path : `"${path}", which will be made in "${existing}"`;
  return ok
    ? { ok, found }
    : { ok, found: `"${existing}" is not writable`, advice: `set ${setting} to a directory that is` };
}

async function freeSpace(path: string): Promise<Finding> {
  const { bavail, bsize, type } = await statfs(await nearestExisting(path));
  const free = bavail * bsize;
  const found = `${(free / 1024 ** 3).toFixed(1)} GiB on ${filesystemNames[type] ?? `file system 0x${type.toString(16)}`}`;
  return {
    ok: free >= leastFreeBytes,
    found,
    advice: "with less than 1 GiB modules and sandboxes soon find the disk full",
  };
}

async function baseModule(dataDir: string): Promise<Finding> {
  const catalog = new DirectoryCatalog(dataDir, { defaultLayers: [], formats: mappableFormats(release()) });
  const bases = (await catalog.list()).filter(({ name }) => name.startsWith("000-"));
  const found = bases.map(({ name, format }) => `${name} (${format})`).join(", ");
  if (bases.length > 0) return { ok: true, found };
  return {
    ok: false,
    found: `none in "${join(dataDir, "modules")}"`,
    advice: 'no sandbox can be created without; run "sq mkbase debian" or "sq mkbase busybox"',
  };
}

async function busybox(): Promise<Finding> {
  try {
    return { ok: true, found: `${await findBusybox()}, static` };
  } catch (error) {
    return { ok: false, found: (error as Error).message, advice: 'only "mkbase busybox" needs it' };
  }
}

async function installed(tool: string, cost: string): Promise<Finding> {
  for (const directory of searchPath) {
    const path = join(directory, tool);
    if (await can(path, constants.X_OK)) return { ok: true, found: path };
  }
  return {
    ok: false,
    found: "not installed",
    advice: `without it ${cost}; apt-get install ${packageOf[tool] ?? tool}`,
  };
}

async function nearestExisting(path: string): Promise<string> {
  return path === dirname(path) || (await can(path, constants.F_OK)) ? path : nearestExisting(dirname(path));
}

function can(path: string, mode: number): Promise<boolean> {
  return access(path, mode).then(
    () => true,
    () => false,
  ); // why not is not asked here
}

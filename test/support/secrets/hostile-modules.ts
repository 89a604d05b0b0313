import { execFileSync, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { trustByHand } from "../modules.js";

/** Where squashd lays trust in, inside; by the names of the files that links lead to. */
export const laidIn = {
  "ca-certificates.crt": "/etc/ssl/certs/ca-certificates.crt",
  "squash-secrets.sh": "/etc/profile.d/squash-secrets.sh",
  "sq-proxy-ca.crt": "/usr/local/share/ca-certificates/sq-proxy-ca.crt",
} as const;
const paths = Object.entries(laidIn);
/** so many as lead out of any folder */
const upwards = "../".repeat(24);

/** Fills a module's root; `victim` is a folder on the host with files of the names above. */
type Plant = (root: string, victim: string) => void;

function link(root: string, path: string, to: string): void {
  mkdirSync(join(root, dirname(path)), { recursive: true });
  symlinkSync(to, join(root, path));
}

/** What modules have in the places where trust is laid in, so that who writes there by a path writes elsewhere. */
export const leadingPlants: Readonly<Record<string, Plant>> = {
  "links in the places of the files": (root, victim) => {
    for (const [name, path] of paths) link(root, path, join(victim, name));
  },
  "links in the places of their folders": (root, victim) => {
    for (const [, path] of paths) link(root, dirname(path), victim);
  },
  "links that climb": (root, victim) => {
    for (const [name, path] of paths) link(root, path, `${upwards}${join(victim, name)}`);
  },
  "links through links": (root, victim) => {
    link(root, "/opt/there", `${upwards}${victim}`);
    for (const [name, path] of paths) link(root, path, `${"../".repeat(path.split("/").length - 2)}opt/there/${name}`);
  },
  "links through /proc": (root, victim) => {
    for (const [name, path] of paths) link(root, path, `/proc/self/root${join(victim, name)}`);
  },
};

/** Keeps who opens them waiting. */
export const pipes: Plant = (root) => {
  for (const [, path] of paths) {
    mkdirSync(join(root, dirname(path)), { recursive: true });
    execFileSync("mkfifo", [join(root, path)]);
  }
};

/** Makes a module, and puts it into a folder of modules. */
export function makeHostileModule(folder: string, name: string, fill: (root: string) => void): void {
  withTree(fill, (root) =>
    execFileSync("mkfs.erofs", ["--all-root", join(folder, `${name}.erofs`), root], { stdio: "ignore" }),
  );
  trustByHand(folder, name);
}

/**
 * Mounts a module's files as a sandbox's root is mounted, and writes to the places by their paths, as a host would that does not take care; in a
 * mount namespace of its own, which goes with it. Returns how many of the three could be written within a third of a second each.
 */
export function layInWithoutCare(fill: (root: string) => void): number {
  return withTree(fill, (root) =>
    withTree(
      () => undefined,
      (work) => {
        const script = `mount -t tmpfs none "$2" && mkdir "$2/upper" "$2/work" "$2/empty" "$2/merged" &&
          mount -t overlay -o "lowerdir=$1:$2/empty,upperdir=$2/upper,workdir=$2/work" none "$2/merged" || exit 99
          done=0
          for path in ${paths.map(([, path]) => path).join(" ")}; do
            mkdir -p "$2/merged$(dirname $path)" 2>/dev/null
            timeout 0.3 sh -c 'echo overwritten >"$1"' sh "$2/merged$path" 2>/dev/null && done=$((done + 1))
          done
          exit $done`;
        const { status } = spawnSync("unshare", ["-m", "sh", "-c", script, "sh", root, work]);
        if (status === null || status > paths.length) throw new Error(`cannot try it: status ${status}`);
        return status;
      },
    ),
  );
}

function withTree<T>(fill: (root: string) => void, use: (root: string) => T): T {
  const root = mkdtempSync(join(tmpdir(), "sqt-hostile-"));
  try {
    fill(root);
    return use(root);
  } finally {
    rmSync(root, { recursive: true });
  }
}

/** A folder on the host that nobody may change. */
export class Victim implements Disposable {
  readonly path = mkdtempSync(join(tmpdir(), "sqt-victim-"));

  constructor() {
    this.reset();
  }

  reset(): void {
    for (const [name] of paths) writeFileSync(join(this.path, name), "untouched\n");
  }

  /** contents, by name */
  get contents(): Record<string, string> {
    return Object.fromEntries(paths.map(([name]) => [name, readFileSync(join(this.path, name), "utf8")]));
  }

  [Symbol.dispose](): void {
    rmSync(this.path, { recursive: true });
  }
}

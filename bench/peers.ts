import { execFile, spawn } from "node:child_process";
import { cpSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { times, type Summary } from "./stats.js";

const run = promisify(execFile);

export interface Peer {
  readonly name: string;
  /** null when it does not run here */
  readonly summary: Summary | null;
  readonly reason?: string;
}

/** Times the peers' way to run `true` in a fresh sandbox of the root file system `root`, below `scratch`. */
export async function measurePeers(root: string, scratch: string, count: number): Promise<Peer[]> {
  return [
    await measure("spawn of /bin/true, no sandbox", count, () => spawnOnce("/bin/true", [])),
    await measure("bwrap --unshare-all", count, () =>
      spawnOnce("bwrap", [
        "--unshare-all",
        "--die-with-parent",
        "--bind",
        root,
        "/",
        "--proc",
        "/proc",
        "--dev",
        "/dev",
        "/bin/true",
      ]),
    ),
    await measureRunc(root, join(scratch, "runc"), count),
    await measurePodman(root, join(scratch, "podman"), count),
  ];
}

async function measureRunc(root: string, bundle: string, count: number): Promise<Peer> {
  mkdirSync(bundle, { recursive: true });
  cpSync(root, join(bundle, "rootfs"), { recursive: true, verbatimSymlinks: true });
  const name = "runc run";
  try {
    await run("runc", ["spec"], { cwd: bundle });
    const { default: spec } = (await import(join(bundle, "config.json"), { with: { type: "json" } })) as {
      default: { process: { terminal: boolean; args: string[] } };
    };
    spec.process.terminal = false;
    spec.process.args = ["/bin/true"];
    writeFileSync(join(bundle, "config.json"), JSON.stringify(spec));
  } catch (error) {
    return { name, summary: null, reason: reasonOf(error) };
  }
  const state = join(bundle, "state");
  return measure(name, count, (round) =>
    spawnOnce("runc", ["--root", state, "run", "--bundle", bundle, `bench-${process.pid}-${round}`]),
  );
}

async function measurePodman(root: string, scratch: string, count: number): Promise<Peer> {
  mkdirSync(scratch, { recursive: true });
  const name = "podman run";
  const podman = [
    "--root",
    join(scratch, "root"),
    "--runroot",
    join(scratch, "run"),
    "--storage-driver",
    "vfs",
    "--cgroup-manager",
    "cgroupfs",
    "--events-backend",
    "file",
  ];
  const archive = join(scratch, "rootfs.tar");
  try {
    await run("tar", ["-cf", archive, "-C", root, "."]);
    await run("podman", [...podman, "import", "-q", archive, "bench"]);
    return await measure(name, count, () =>
      spawnOnce("podman", [
        ...podman,
        "run",
        "--rm",
        "--network",
        "none",
        ...["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"], // its defaults are more than some machines allow
        "--pull",
        "never",
        "localhost/bench",
        "/bin/true",
      ]),
    );
  } catch (error) {
    return { name, summary: null, reason: reasonOf(error) };
  } finally {
    await run("podman", [...podman, "system", "reset", "-f"]).catch(() => undefined); // what it could not import it need not remove
    rmSync(scratch, { recursive: true, force: true });
  }
}

async function measure(name: string, count: number, once: (round: number) => Promise<void>): Promise<Peer> {
  try {
    await once(-1);
    return { name, summary: await times(count, once) };
  } catch (error) {
    return { name, summary: null, reason: reasonOf(error) };
  }
}

function spawnOnce(program: string, args: readonly string[]): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { stdio: ["ignore", "ignore", "pipe"], timeout: 60_000 });
    let errors = "";
    child.stderr.on("data", (chunk: Buffer) => (errors += chunk.toString()));
    child.on("error", reject);
    child.on("close", (status) => {
      if (status === 0) resolve();
      else reject(new Error(`${program} ended with status ${status}: ${errors.trim().slice(0, 300)}`));
    });
  });
}

function reasonOf(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  return text.split("\n").slice(0, 2).join(" ").slice(0, 120);
}

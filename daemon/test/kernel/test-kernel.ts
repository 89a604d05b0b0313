import { execFileSync } from "node:child_process";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { release, tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, expect } from "vitest";
import type { Subnet } from "../../src/core/egress/firewall.js";
import type { Command, CommandResult } from "../../src/core/ports.js";
import { mappableFormats } from "../../src/kernel/image-formats.js";
import { LinuxKernel } from "../../src/kernel/kernel.js";
import { hostState, settledState, type HostState } from "../../../test/support/leaks.js";
import { ensureTestModules } from "../../../test/support/modules.js";
import { TestNetns } from "../../../test/support/netns.js";
import { patience } from "../../../test/support/patience.js";
import { repositoryRoot } from "../../../test/support/root.js";

const settleTimeoutMs = 20_000 * patience;
let counter = 0;

export type Format = "squashfs" | "erofs";

/** The format that this kernel can give to cells, and reads the quicker. */
export const usableFormat: Format = mappableFormats(release())[0] ?? "squashfs";

/** All that a test could leave: on the host, in sq-host's own mount namespace, and in its directories. */
export interface MachineState extends HostState {
  /** mount points that sq-host sees */
  readonly inside: readonly string[];
  readonly sockets: readonly string[];
  readonly sandboxes: readonly string[];
}

/** The kernel adapter with an sq-host, directories and cgroups of its own. */
export class TestKernel {
  /** occurs in the name of everything that it makes on the host */
  readonly mark = `sqt-k${process.pid}-${++counter}`;
  readonly home = mkdtempSync(join(tmpdir(), `${this.mark}-`));
  readonly dataDir = join(this.home, "data");
  readonly runDir = join(this.home, "run");
  readonly uidBase = 1_342_177_280;
  /** inits that died without being asked to */
  readonly deaths: { readonly index: number; readonly pid: number }[] = [];
  /** why sq-host was started again, each time */
  readonly restarts: string[] = [];
  /** where links are, when it has a network */
  readonly netns = new TestNetns(join(this.home, "net"));
  readonly #subnet: Subnet | null;
  #kernel: LinuxKernel | null = null;

  /** With a subnet, sq-host runs in a network namespace of the test's own. */
  constructor(options: { readonly subnet?: Subnet } = {}) {
    this.#subnet = options.subnet ?? null;
    mkdirSync(join(this.dataDir, "modules"), { recursive: true });
    mkdirSync(this.runDir);
  }

  get kernel(): LinuxKernel {
    if (this.#kernel === null) throw new Error("the kernel adapter is not started");
    return this.#kernel;
  }

  async start(): Promise<void> {
    this.#kernel = await LinuxKernel.start({
      binary: this.#program(),
      runDir: this.runDir,
      dataDir: this.dataDir,
      uidBase: this.uidBase,
      cgroupRoot: this.mark,
      subnet: this.#subnet,
      hostRestarted: (reason) => this.restarts.push(reason),
    });
    this.#kernel.onCellDeath((index, pid) => this.deaths.push({ index, pid }));
  }

  /** Sq-host as a shell starts it that lets programs open few files unless they ask for more. */
  #program(): string {
    const command = ["prlimit --nofile=256:", join(repositoryRoot, "native/build/sq-host")];
    if (this.#subnet !== null) {
      this.netns.make();
      command.unshift(`nsenter --net=${this.netns.path}`);
    }
    const script = join(this.home, "sq-host");
    writeFileSync(script, `#!/bin/sh\nexec ${command.join(" ")}\n`, { mode: 0o755 });
    return script;
  }

  /** Ends sq-host, which leaves what there is to the next one, or with `forget` nothing. */
  async stop(options = { forget: false }): Promise<void> {
    const pid = await this.hostPid();
    await this.kernel.close(options);
    this.#kernel = null;
    await until(() => !existsSync(`/proc/${pid}`));
  }

  /** Removes the directories, once it has stopped for good. */
  remove(): void {
    this.netns[Symbol.dispose]();
    const mounted = readFileSync("/proc/self/mountinfo", "utf8").includes(this.home);
    if (mounted) throw new Error(`something is still mounted below ${this.home}; it is left for inspection`);
    rmSync(this.home, { recursive: true, force: true });
  }

  /** Process id of the running sq-host. */
  async hostPid(): Promise<number> {
    const pid = await this.kernel.hostPid();
    if (pid === undefined) throw new Error("sq-host does not run");
    return pid;
  }

  async state(): Promise<MachineState> {
    return {
      ...hostState([this.mark]),
      inside: mountsOf(await this.hostPid())
        .map(({ path }) => path)
        .toSorted(),
      sockets: filesIn(join(this.runDir, "cells")),
      sandboxes: filesIn(join(this.dataDir, "sandboxes")),
    };
  }

  /** Waits until the state is `before` again, since the kernel takes namespaces and loop devices down a moment later, and returns it. */
  async settled(before: MachineState): Promise<MachineState> {
    const deadline = Date.now() + settleTimeoutMs;
    for (;;) {
      const state = await this.state();
      if (JSON.stringify(state) === JSON.stringify(before) || Date.now() > deadline) return state;
      await new Promise((done) => setTimeout(done, 20));
    }
  }

  /** Puts a test's module among the images, under a name of its own; returns its path for the kernel. */
  image(module: "000-base-test" | "100-extra", format: Format): string {
    const scratch = join(this.home, "images");
    if (!existsSync(scratch)) ensureTestModules(scratch);
    const image = this.imageName(module, format);
    copyFileSync(join(scratch, `${module}.${format}`), join(this.dataDir, image));
    return image;
  }

  /** Packs what `fill` makes in a directory as an image, for layers. */
  pack(name: string, format: Format, fill: (root: string) => void): string {
    const root = join(this.home, `tree-${name}`);
    mkdirSync(root);
    fill(root);
    const image = this.imageName(name, format);
    const path = join(this.dataDir, image);
    const argv =
      format === "squashfs"
        ? ["mksquashfs", root, path, "-noappend", "-quiet", "-no-progress", "-all-root"]
        : ["mkfs.erofs", "-zlz4", "--all-root", path, root];
    execFileSync(argv[0] ?? "", argv.slice(1), { stdio: "ignore" });
    rmSync(root, { recursive: true });
    return image;
  }

  /** The mark is part of it, so that a loop device that is left can be told from others'. */
  imageName(name: string, format: Format): string {
    return `modules/${name}-${this.mark}.${format}`;
  }

  /** Runs a shell command in a cell. */
  run(index: number, script: string, more: Partial<Command> = {}, signal?: AbortSignal): Promise<CommandResult> {
    return this.kernel.run(index, commandOf(script, more), signal ?? new AbortController().signal);
  }

  /** What a shell command prints, which must succeed and say nothing else. */
  async print(index: number, script: string): Promise<string> {
    const { stdout, stderr, exitCode } = await this.run(index, script);
    expect([stderr.toString(), exitCode]).toEqual(["", 0]);
    return stdout.toString();
  }
}

/** A shell command with what a caller who says nothing gets. */
export function commandOf(script: string, more: Partial<Command> = {}): Command {
  return {
    argv: [script],
    shell: true,
    workdir: "/",
    user: "",
    env: {},
    stdin: "",
    timeoutMs: 60_000,
    outputLimit: 65_536,
    ...more,
  };
}

/** Starts one for a file of tests. Each test must leave the machine as it was. */
export function useKernel(options: { readonly subnet?: Subnet } = {}): TestKernel {
  const machine = new TestKernel(options);
  let outside: HostState;
  let before: MachineState;
  let cells: readonly number[];
  beforeAll(async () => {
    outside = hostState([machine.mark]);
    await machine.start();
  });
  beforeEach(async () => {
    before = await machine.state();
    cells = await machine.kernel.cellsInCgroups();
  });
  afterEach(async () => {
    const after = await machine.settled(before);
    // a test that failed half-way must not make the next ones fail
    const left = (await machine.kernel.cellsInCgroups()).filter((index) => !cells.includes(index));
    for (const index of left) await machine.kernel.killCell(index);
    expect(after).toEqual(before);
  });
  afterAll(async () => {
    await machine.stop({ forget: true });
    machine.remove();
    expect(await settledState(outside, [machine.mark], settleTimeoutMs)).toEqual(outside);
  });
  return machine;
}

export interface MountLine {
  readonly path: string;
  readonly options: readonly string[];
  readonly type: string;
  readonly source: string;
}

/** The mounts that a process sees. Source: proc(5) */
export function mountsOf(pid: number | "self"): MountLine[] {
  return readFileSync(`/proc/${pid}/mountinfo`, "utf8")
    .trim()
    .split("\n")
    .map((line) => {
      const [left = "", right = ""] = line.split(" - ");
      const [type = "", source = ""] = right.split(" ");
      const fields = left.split(" ");
      return { path: unescaped(fields[4] ?? ""), options: (fields[5] ?? "").split(","), type, source };
    });
}

/** Waits for what does not take long. */
async function until(holds: () => boolean): Promise<void> {
  const deadline = Date.now() + settleTimeoutMs;
  while (!holds()) {
    if (Date.now() > deadline) throw new Error("it did not come to pass");
    await new Promise((done) => setTimeout(done, 5));
  }
}

function unescaped(path: string): string {
  const bytes = Buffer.from(path, "utf8").toString("latin1");
  const plain = bytes.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(parseInt(octal, 8)));
  return Buffer.from(plain, "latin1").toString("utf8");
}

function filesIn(folder: string): string[] {
  return existsSync(folder) ? readdirSync(folder).toSorted() : [];
}

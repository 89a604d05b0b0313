import { spawn, spawnSync, type ChildProcess } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Client } from "@squash/sdk";
import { startCommand, type Ended, type Running } from "./commands.js";
import { ensureTestModules } from "./modules.js";
import { TestNetns } from "./netns.js";
import { patience } from "./patience.js";
import { repositoryRoot } from "./root.js";

const startTimeoutMs = 60_000 * patience;
let counter = 0;

export interface SquashdOptions {
  /** further settings */
  readonly env?: Readonly<Record<string, string>>;
  /** where it listens, when `env` says so */
  readonly url?: string;
  /** whether it is to run in this process's network namespace, which must be one that was made for that */
  readonly here?: boolean;
  /** that it wants, when `env` says so */
  readonly token?: string;
  /** a program and its arguments that run it, in the process that they are given */
  readonly within?: readonly string[];
}

/** A squashd with directories, cgroups and a socket of its own, which a test may start, kill and start again. */
export class TestSquashd {
  /** occurs in the name of everything that it makes on the host */
  readonly mark: string;
  readonly home: string;
  readonly dataDir: string;
  readonly runDir: string;
  readonly client: Client;
  /** where its links, routes and firewall rules are */
  readonly netns: TestNetns;
  readonly #env: Record<string, string>;
  readonly #within: readonly string[];
  #process: ChildProcess | null = null;
  #output = "";

  constructor(options: SquashdOptions = {}) {
    this.mark = `sqt-${process.pid}-${++counter}`;
    this.home = mkdtempSync(join(tmpdir(), `${this.mark}-`));
    this.dataDir = join(this.home, "data");
    this.runDir = join(this.home, "run");
    mkdirSync(this.dataDir, { recursive: true });
    mkdirSync(this.runDir, { recursive: true });
    // without the mark, as it outlives squashd: what that leaves in it is looked for there
    const netns = join(tmpdir(), `netns-${process.pid}-${counter}`);
    this.netns = options.here === true ? new TestNetns() : new TestNetns(netns);
    const socket = join(this.home, "api.sock");
    this.#within = options.within ?? [];
    this.client = new Client({ url: options.url ?? `unix:${socket}`, token: options.token });
    this.#env = {
      PATH: process.env["PATH"] ?? "/usr/sbin:/usr/bin:/sbin:/bin",
      SQUASH_DATA_DIR: this.dataDir,
      SQUASH_RUN_DIR: this.runDir,
      SQUASH_LISTEN: `unix:${socket}`,
      SQUASH_CGROUP_ROOT: this.mark,
      SQUASH_POOL_SIZE: "2",
      SQUASH_LOG_LEVEL: "warn",
      ...options.env,
    };
  }

  /** Process id of the daemon. */
  get pid(): number {
    const pid = this.#process?.pid;
    if (pid === undefined) throw new Error("squashd is not running");
    return pid;
  }

  /** Process id of its sq-host. */
  get hostPid(): number {
    const pid = this.#findHost();
    if (pid === null) throw new Error("squashd has no sq-host");
    return pid;
  }

  /** What it has printed so far. */
  get output(): string {
    return this.#output;
  }

  /** Starts `sq` with it as its daemon. */
  startSq(...args: readonly string[]): Running {
    return startCommand("sq", args, { SQUASH_API: `unix:${join(this.home, "api.sock")}` });
  }

  /** Runs `sq` with it to its end. */
  sq(...args: readonly string[]): Promise<Ended> {
    return this.startSq(...args).ended;
  }

  async destroyAll(): Promise<void> {
    for (const { id } of await this.client.list()) await this.client.sandbox(id).destroy();
  }

  /** Starts it and waits until it answers. `env` replaces settings from now on. */
  async start(env: Readonly<Record<string, string>> = {}): Promise<this> {
    Object.assign(this.#env, env);
    ensureTestModules(join(this.dataDir, "modules"));
    this.netns.make();
    const [first, ...rest] = [...this.#within, process.execPath, join(repositoryRoot, "daemon/dist/main.js")] as const;
    const [program, args] = this.netns.enter(first, rest);
    const child = spawn(program, args, {
      env: this.#env,
      stdio: ["ignore", "pipe", "pipe"],
    });
    this.#process = child;
    for (const stream of [child.stdout, child.stderr])
      stream.on("data", (text: Buffer) => (this.#output += text.toString()));
    const deadline = Date.now() + startTimeoutMs;
    for (;;) {
      if (child.exitCode !== null) throw new Error(`squashd ended with status ${child.exitCode}:\n${this.#output}`);
      try {
        await this.client.health();
        return this;
      } catch (error) {
        if (Date.now() > deadline) throw new Error(`squashd does not answer:\n${this.#output}`, { cause: error });
        await new Promise((done) => setTimeout(done, 10));
      }
    }
  }

  /** Kills sq-host, and waits for the next one: what comes while its namespaces are being taken down fails with it. */
  async killHost(): Promise<void> {
    const killed = this.hostPid;
    process.kill(killed, "SIGKILL");
    const deadline = Date.now() + startTimeoutMs;
    for (let now = this.#findHost(); now === null || now === killed; now = this.#findHost()) {
      if (Date.now() > deadline) throw new Error(`there is no other sq-host:\n${this.#output}`);
      await new Promise((done) => setTimeout(done, 5));
    }
  }

  /** Ends it with a signal and waits until it is gone. */
  async end(signal: NodeJS.Signals = "SIGTERM"): Promise<void> {
    const child = this.#process;
    this.#process = null;
    this.client.close();
    if (child?.exitCode !== null || child.signalCode !== null) return;
    const gone = new Promise((done) => child.once("exit", done));
    child.kill(signal);
    await gone;
  }

  #findHost(): number | null {
    const { stdout } = spawnSync("pgrep", ["-P", String(this.pid), "sq-host"], { encoding: "utf8" });
    return stdout.trim() === "" ? null : Number(stdout);
  }

  /** Destroys all sandboxes, ends it, and removes its directories. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#process === null) await this.start();
    for (const { id } of await this.client.list()) await this.client.sandbox(id).destroy();
    await this.end();
    this.netns[Symbol.dispose]();
    const mounted = readFileSync("/proc/self/mountinfo", "utf8").includes(this.home);
    if (mounted) throw new Error(`something is still mounted below ${this.home}; it is left for inspection`);
    rmSync(this.home, { recursive: true, force: true });
  }
}

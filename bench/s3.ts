import { execFile, execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { closeSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import type { JobRequest } from "@squash/sdk";
import { trustByHand } from "../test/support/modules.js";
import { repositoryRoot } from "../test/support/root.js";
import { S3Server } from "../test/support/s3/s3-server.js";
import { squashdWithBucket } from "../test/support/s3/squashd-with-bucket.js";
import type { TestSquashd } from "../test/support/squashd.js";
import type { PlainArguments, PlainFigures } from "./s3-plain-host.js";

const run = promisify(execFile);
const host = join(repositoryRoot, "build/test/bench/s3-plain-host.js");
const mib = 1_048_576;
const sampleMs = 20;

/** MB/s of each way, and the most memory over idle that it took, in bytes. */
export interface CopyFigures {
  readonly push: number;
  readonly pull: number;
  readonly memory: number;
}

/** Squashd and the plain SDK with the same file and the same server on loopback; all of them are processes of their own on this machine. */
export class S3Bench {
  readonly #server: S3Server;
  readonly #folder = mkdtempSync(join(tmpdir(), "squash-bench-s3-"));
  readonly #bytes: number;

  private constructor(server: S3Server, bytes: number) {
    this.#server = server;
    this.#bytes = bytes;
  }

  /** `megabytes` of a module's image. */
  static async start(megabytes: number): Promise<S3Bench> {
    const server = await S3Server.start();
    const bench = new S3Bench(server, megabytes * mib);
    const tree = join(bench.#folder, "tree");
    mkdirSync(tree);
    fill(join(tree, "content"), megabytes);
    mkdirSync(join(bench.#folder, "modules"));
    execFileSync("mkfs.erofs", ["--all-root", bench.#image, tree], { stdio: "ignore" });
    trustByHand(join(bench.#folder, "modules"), "900-large");
    rmSync(tree, { recursive: true });
    return bench;
  }

  /** Of the sizes of parts that were tried the best, as whoever sets it up with care gets it. */
  async plain(): Promise<Omit<CopyFigures, "memory">> {
    const tried: Omit<CopyFigures, "memory">[] = [];
    for (const [partMib, parallel] of [
      [8, 6],
      [16, 4],
      [32, 4],
    ] as const) {
      const { endpoint, region, bucket, credentials } = this.#server;
      const place = { endpoint, region, bucket, credentials };
      const to = join(this.#folder, "back");
      const key = `plain/${partMib}`;
      const given: PlainArguments = { place, from: this.#image, to, key, partBytes: partMib * mib, parallel };
      const { stdout } = await run(process.execPath, [host, JSON.stringify(given)]);
      const { pushS, pullS } = JSON.parse(stdout) as PlainFigures;
      tried.push({ push: this.#bytes / pushS / 1e6, pull: this.#bytes / pullS / 1e6 });
      rmSync(to);
    }
    return { push: Math.max(...tried.map(({ push }) => push)), pull: Math.max(...tried.map(({ pull }) => pull)) };
  }

  async squash(): Promise<CopyFigures> {
    await using squashd = squashdWithBucket(this.#server);
    const modules = join(squashd.dataDir, "modules");
    mkdirSync(modules, { recursive: true });
    execFileSync("cp", [this.#image, join(this.#folder, "modules/900-large.manifest.json"), modules]);
    await squashd.start();
    await settled(squashd);
    const push = await this.#timed(squashd, { kind: "push", module: "900-large" });
    await squashd.client.removeModule("900-large");
    const pull = await this.#timed(squashd, { kind: "pull", module: "900-large" });
    return { push: push.rate, pull: pull.rate, memory: Math.max(push.memory, pull.memory) };
  }

  /** Seconds of a comparison with nothing to do, of so many modules. */
  async idleSync(count: number): Promise<number> {
    await using squashd = squashdWithBucket(this.#server, { env: { SQUASH_S3_PREFIX: "many/" } });
    const modules = join(squashd.dataDir, "modules");
    mkdirSync(modules, { recursive: true });
    const tree = join(this.#folder, "small");
    mkdirSync(tree, { recursive: true });
    for (let index = 0; index < count; index++) {
      writeFileSync(join(tree, "file"), `${index}`);
      const name = `500-small-${index}`;
      execFileSync("mkfs.erofs", ["--all-root", join(modules, `${name}.erofs`), tree], { stdio: "ignore" });
      trustByHand(modules, name);
    }
    await squashd.start();
    await done(squashd, { kind: "sync" });
    const start = performance.now();
    await done(squashd, { kind: "sync" });
    return (performance.now() - start) / 1_000;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server[Symbol.asyncDispose]();
    rmSync(this.#folder, { recursive: true, force: true });
  }

  get #image(): string {
    return join(this.#folder, "modules/900-large.erofs");
  }

  async #timed(squashd: TestSquashd, job: JobRequest): Promise<{ readonly rate: number; readonly memory: number }> {
    const idle = residentBytes(squashd.pid);
    let most = idle;
    const timer = setInterval(() => (most = Math.max(most, residentBytes(squashd.pid))), sampleMs);
    const start = performance.now();
    await done(squashd, job);
    const seconds = (performance.now() - start) / 1_000;
    clearInterval(timer);
    return { rate: this.#bytes / seconds / 1e6, memory: most - idle };
  }
}

/** Runs a job to its end. Throws where it fails. */
async function done(squashd: TestSquashd, request: JobRequest): Promise<void> {
  let last = await squashd.client.startJob(request);
  for await (const next of squashd.client.watchJob(last.id)) last = next;
  if (last.state !== "done") throw new Error(`${last.kind} ${last.module}: ${last.error}`);
}

/** Modules are read through at the start, and sent: until that is over. */
async function settled(squashd: TestSquashd): Promise<void> {
  while ((await squashd.client.bucket()).last_sync === null) await new Promise((resolve) => setTimeout(resolve, 100));
  await squashd.client.removeBucketModule("900-large");
  await done(squashd, { kind: "s3-gc", grace_s: 0 });
}

function fill(path: string, megabytes: number): void {
  const file = openSync(path, "w");
  for (let written = 0; written < megabytes; written++) writeSync(file, randomBytes(mib));
  closeSync(file);
}

function residentBytes(pid: number): number {
  const [, kib = "0"] = /VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, "utf8")) ?? [];
  return Number(kib) * 1_024;
}

import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { cpus, release, tmpdir } from "node:os";
import { join } from "node:path";
import { repositoryRoot } from "../test/support/root.js";
import { makeBenchBase } from "./base.js";
import { ColdBench } from "./cold.js";
import { measurePeers } from "./peers.js";
import { NetworkBench } from "./network.js";
import { startOnline, startSquashd } from "./squash.js";
import type { Summary } from "./stats.js";
import { S3Bench } from "./s3.js";
import { SecretsBench, type SecretFigures } from "./secrets.js";
import { BtrfsBench } from "./btrfs.js";
import { TimeBench } from "./time.js";
import { ms, renderTable, type Row } from "./table.js";

const count = Number(process.env["BENCH_COUNT"] ?? 200);
const crowdSize = Number(process.env["BENCH_CROWD"] ?? 1_000);
/** of the module that is sent and fetched */
const bucketMb = Number(process.env["BENCH_BUCKET_MB"] ?? 1_024);
const scratch = mkdtempSync(join(tmpdir(), "squash-bench-"));
const root = join(scratch, "root");
const rows: Row[] = [];

function say(text: string): void {
  process.stderr.write(`${text} …\n`);
}

function timed(what: string, { p50, p99 }: Summary, most: { p50: number; p99: number }): void {
  const target = `≤ ${most.p50} / ≤ ${most.p99} ms`;
  rows.push({ what, p50: ms(p50), p99: ms(p99), target, ok: p50 <= most.p50 && p99 <= most.p99 });
}

function atLeast(what: string, perSecond: number, least: number): void {
  rows.push({ what, p50: `${perSecond.toFixed(0)} /s`, target: `≥ ${least} /s`, ok: perSecond >= least });
}

function atMost(what: string, value: number, most: number, show: (value: number) => string): void {
  rows.push({ what, p50: show(value), target: `≤ ${show(most)}`, ok: value <= most });
}

/** Everything that is asked of the same daemon: with the pool full, commands, and rates. */
async function measureWarm(): Promise<Summary> {
  await using squashd = await startSquashd((modules) => makeBenchBase(root, modules), {
    SQUASH_POOL_SIZE: "8",
    SQUASH_MAX_SANDBOXES: "2000",
  });
  say("create and first command");
  await squashd.timeToInteractive(50); // the compiler of JavaScript needs some rounds
  const interactive = await squashd.timeToInteractive(count);
  timed("create + first exec of true, pool warm", interactive, { p50: 3, p99: 12 });
  say("commands");
  timed("exec of a static true", await squashd.exec(count, ["/bin/true-static"]), { p50: 0.6, p99: 4 });
  timed("exec of sh -c 'echo hi'", await squashd.exec(count, ["/bin/sh", "-c", "echo hi"]), { p50: 1.5, p99: 4 });
  timed('exec of "echo hi" through the login shell', await squashd.exec(count, "echo hi"), { p50: 1.5, p99: 4 });
  say("destroy");
  timed("destroy, until everything is gone", await squashd.destroy(count), { p50: 2.5, p99: 12 });
  say("burst");
  const burst = await squashd.burst(100, 5);
  atMost("burst: 100 creates + execs at once", burst.p50, 450, ms);
  say("rates");
  atLeast("create + exec + destroy, 4 clients", await squashd.lifecycles(4, 5), 250);
  atLeast("execs of /bin/true, 50 sandboxes, 16 clients", await squashd.execs(50, 16, 5), 1500);
  return interactive;
}

/** The network of sandboxes; the tests' internet is beside it. */
async function measureNetwork(): Promise<void> {
  const env = { SQUASH_POOL_SIZE: "8", SQUASH_MAX_SANDBOXES: String(crowdSize + 10) };
  const { bench, internet } = await startOnline((modules) => makeBenchBase(join(scratch, "root-online"), modules), env);
  await using _bench = bench;
  await using _internet = internet;
  const network = new NetworkBench(bench);
  say("policies and names");
  await network.change(50);
  const change = await network.change(count);
  timed("change of a policy of 50 entries", change, { p50: 5, p99: 20 });
  timed("DNS answer from the cache, inside", await network.dns(50), { p50: 0.5, p99: 5 });
  const echo = await network.echo(50);
  rows.push({ what: "UDP echo of two programs, plain veth", p50: ms(echo.p50), p99: ms(echo.p99) });
  say("throughput");
  const { sandbox, plain } = await network.direct();
  rows.push({
    what: "TCP from the host, by address",
    p50: `${sandbox.toFixed(1)} Gbit/s`,
    target: "≥ 0.9 × plain veth",
    ok: sandbox >= 0.9 * plain,
    ratio: `${(sandbox / plain).toFixed(2)} × a plain veth pair (${plain.toFixed(1)} Gbit/s)`,
  });
  const proxied = await network.proxied(internet);
  rows.push({
    what: "TCP through the proxy",
    p50: `${proxied.toFixed(1)} Gbit/s`,
    target: "≥ 3 Gbit/s",
    ok: proxied >= 3,
  });
  say(`${crowdSize} sandboxes with policies`);
  const few = await network.among(10, count);
  const many = await network.among(crowdSize, count);
  atMost(`change of a policy at ${crowdSize} / at 10`, many.change.p50 / few.change.p50, 1.5, (value) =>
    value.toFixed(2),
  );
  atMost(`create with a policy at ${crowdSize} / at 10`, many.create.p50 / few.create.p50, 1.5, (value) =>
    value.toFixed(2),
  );
}

/** Snapshots, forks and changes of the stack. */
async function measureTime(): Promise<void> {
  await using squashd = await startSquashd((modules) => makeBenchBase(join(scratch, "root-time"), modules), {
    SQUASH_MAX_SANDBOXES: "200",
  });
  say("snapshots and forks");
  const time = new TimeBench(squashd);
  const rounds = Math.min(count, 50);
  await time.forkSmall(50); // as for creates
  timed("fork of a small sandbox", await time.forkSmall(rounds), { p50: 5, p99: 50 });
  const many = await time.forkMany(100, 3);
  atMost("100 forks at once, all interactive", many.p50, 700, ms);
  const { whole, pause } = await time.snapshot(rounds);
  timed("snapshot of 2,000 files, 20 MB (tmpfs)", whole, { p50: 200, p99: 1000 });
  rows.push({ what: "its pause", p50: ms(pause.p50), p99: ms(pause.p99) });
  timed("restore of that snapshot", await time.restore(rounds), { p50: 8, p99: 80 });
  timed("activate, idle", await time.activate(rounds), { p50: 4, p99: 40 });
}

/** Images that nothing is in memory of. */
function measureImages(): void {
  say("cold reads of images");
  const directory = join(scratch, "images");
  mkdirSync(directory);
  const bench = new ColdBench(directory);
  const rounds = Math.min(count, 9);
  const reads = bench.reads(rounds);
  rows.push({
    what: "2,000 cold reads of 4 KiB in a module",
    p50: ms(reads.erofs),
    target: "≥ 4 × squashfs, ≥ 0.9 × ext4",
    ok: reads.squashfs >= 4 * reads.erofs && reads.ext4 >= 0.9 * reads.erofs,
    ratio: `${(reads.squashfs / reads.erofs).toFixed(1)} × squashfs zstd (${ms(reads.squashfs)}), ${(reads.ext4 / reads.erofs).toFixed(2)} × ext4 (${ms(reads.ext4)})`,
  });
  const imports = bench.imports(rounds);
  rows.push({
    what: "cold import of 300 Python modules",
    p50: ms(imports.erofs),
    target: "≤ 1.1 × ext4",
    ok: imports.erofs <= 1.1 * imports.ext4,
    ratio: `${(imports.erofs / imports.ext4).toFixed(2)} × ext4 (${ms(imports.ext4)}); squashfs zstd ${ms(imports.squashfs)}`,
  });
}

/** The same where uppers share their content. */
async function measureBtrfs(): Promise<void> {
  await using squashd = await startSquashd((modules) => makeBenchBase(join(scratch, "root-btrfs"), modules), {
    SQUASH_MAX_SANDBOXES: "200",
    SQUASH_UPPER_BACKEND: "btrfs",
    SQUASH_UPPER_LIMIT_MB: "4096",
    SQUASH_POOL_MB: "8192",
  });
  say("snapshots and forks on btrfs");
  const time = new BtrfsBench(squashd);
  const rounds = Math.min(count, 30);
  const small = await time.written(1, rounds);
  const large = await time.written(1024, rounds);
  rows.push({ what: "fork, btrfs, 1 MB written", p50: ms(small.fork.p50), p99: ms(small.fork.p99) });
  timed("fork, btrfs, 1 GB written", large.fork, { p50: 20, p99: 200 });
  atMost("that with 1 GB / with 1 MB", large.fork.p50 / small.fork.p50, 1.5, (value) => value.toFixed(2));
  rows.push({ what: "snapshot, btrfs, 1 GB written", p50: ms(large.snapshot.p50), p99: ms(large.snapshot.p99) });
  timed("its pause", large.pause, { p50: 10, p99: 100 });
  timed("its pause, 200 MB of it a moment ago", await time.dirtyPause(5), { p50: 10, p99: 100 });
  timed("restore, btrfs, 1 GB", large.restore, { p50: 8, p99: 80 });
  rows.push({ what: "restore, btrfs, 1 MB", p50: ms(small.restore.p50), p99: ms(small.restore.p99) });
  const many = await time.forkMany(100, 3);
  atMost("100 forks at once, btrfs, all interactive", many.p50, 700, ms);
}

/** What it costs to put secrets in, and how another program does the same. */
async function measureSecrets(): Promise<void> {
  say("secrets");
  using bench = await SecretsBench.start();
  const tunnelled = await bench.tunnelled();
  const squash = await bench.squash();
  const other = await bench.mitmproxy().catch((error: unknown) => String(error).slice(0, 120));
  const beside = (show: (figures: SecretFigures) => string): string =>
    typeof other === "string" ? `mitmproxy does not run here: ${other}` : `mitmproxy: ${show(other)}`;
  const added = squash.latency.p50 - tunnelled.latency.p50;
  const gigabits = (value: number): string => `${value.toFixed(1)} Gbit/s`;
  rows.push({
    what: "request with a secret, beyond a tunnelled one",
    ...{ p50: ms(added), target: "≤ 0.7 ms", ok: added <= 0.7 },
    ratio: beside(({ latency }) => ms(latency.p50 - tunnelled.latency.p50)),
  });
  rows.push({
    what: "requests with a secret, 16 connections",
    ...{ p50: `${squash.perSecond.toFixed(0)} /s`, target: "≥ 2500 /s", ok: squash.perSecond >= 2_500 },
    ratio: beside(({ perSecond }) => `${perSecond.toFixed(0)} /s`),
  });
  rows.push({
    what: "answer of 2 GiB that is searched for the secret",
    ...{ p50: gigabits(squash.gigabits), target: "≥ 2 Gbit/s", ok: squash.gigabits >= 2 },
    ratio: beside((figures) => gigabits(figures.gigabits)),
  });
  rows.push({
    what: "first request to a host, with its certificate",
    ...{ p50: ms(squash.first.p50), p99: ms(squash.first.p99), target: "≤ 8 ms", ok: squash.first.p50 <= 8 },
    ratio: `tunnelled: ${ms(tunnelled.first.p50)}; ${beside(({ first }) => ms(first.p50))}`,
  });
}

async function measureBucket(): Promise<void> {
  say("bucket");
  await using bench = await S3Bench.start(bucketMb);
  const plain = await bench.plain();
  const squash = await bench.squash();
  const speed = (value: number): string => `${value.toFixed(0)} MB/s`;
  for (const way of ["push", "pull"] as const)
    rows.push({
      what: `${way} of a module of ${bucketMb} MiB`,
      ...{ p50: speed(squash[way]), target: "≥ 80 % of the SDK", ok: squash[way] >= 0.8 * plain[way] },
      ratio: `the SDK alone, its best: ${speed(plain[way])}`,
    });
  atMost("memory for that, beyond idle", squash.memory / 1_048_576, 150, (value) => `${value.toFixed(0)} MiB`);
  atMost(
    "sync of 1,000 modules with nothing to do",
    await bench.idleSync(1_000),
    2,
    (value) => `${value.toFixed(2)} s`,
  );
}

async function measureCold(): Promise<void> {
  await using squashd = await startSquashd((modules) => makeBenchBase(join(scratch, "root-cold"), modules), {
    SQUASH_POOL_SIZE: "0",
    SQUASH_MAX_SANDBOXES: String(crowdSize + 10),
  });
  say("create and first command, no pool");
  await squashd.timeToInteractive(50);
  timed("create + first exec of true, no pool", await squashd.timeToInteractive(count), { p50: 5, p99: 20 });
  say(`${crowdSize} sandboxes`);
  const { few, many, mibEach } = await squashd.crowd(crowdSize, count);
  rows.push({ what: "create at 10 living sandboxes", p50: ms(few.p50), p99: ms(few.p99) });
  rows.push({ what: `create at ${crowdSize} living sandboxes`, p50: ms(many.p50), p99: ms(many.p99) });
  atMost(`create at ${crowdSize} / at 10`, many.p50 / few.p50, 1.5, (value) => value.toFixed(2));
  atMost(`memory for an idle sandbox at ${crowdSize}`, mibEach, 0.8, (value) => `${value.toFixed(2)} MB`);
}

try {
  const interactive = await measureWarm();
  await measureCold();
  await measureNetwork();
  await measureTime();
  measureImages();
  await measureBtrfs();
  await measureSecrets();
  await measureBucket();
  say("peers");
  mkdirSync(root, { recursive: true });
  for (const { name, summary, reason } of await measurePeers(root, scratch, count)) {
    const ratio =
      summary === null
        ? `does not run here: ${reason}`
        : `${(summary.p50 / interactive.p50).toFixed(1)} × create + first exec`;
    rows.push({
      what: name,
      p50: summary === null ? "-" : ms(summary.p50),
      p99: summary === null ? "" : ms(summary.p99),
      ratio,
    });
  }
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
const report = `${cpus().length} × ${cpus()[0]?.model ?? "?"}, Linux ${release()}, Node ${process.version}, medians and 99th percentiles of ${count}\n\n${renderTable(rows)}`;
writeFileSync(join(repositoryRoot, "build/bench.md"), report);
process.stdout.write(`\n${report}`);

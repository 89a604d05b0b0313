import { release } from "node:os";
import { fileURLToPath } from "node:url";
import type { FastifyInstance } from "fastify";
import { pino, type Logger } from "pino";
import { DiffAnswers } from "./diff/diff-answers.js";
import { isLoopback, type Config } from "./config.js";
import { Daemon } from "./daemon.js";
import type { Emit } from "./core/events.js";
import { logEvents } from "./event-log.js";
import { mappableFormats } from "./kernel/image-formats.js";
import { urlOf } from "./listen.js";
import { Metrics } from "./metrics.js";
import { ModuleHouse } from "./module-house.js";
import { DirectoryCatalog } from "./modules/catalog.js";
import { collectFiles } from "./modules/garbage.js";
import { RemoteHouse } from "./remote/remote-house.js";
import { clearSocketFile } from "./socket-file.js";
import { readVersion } from "./version.js";

/** requests that are being answered may take this long once the end was asked for */
const drainMs = 8_000;
const webDir = fileURLToPath(new URL("../../web", import.meta.url));

/** Runs squashd until it is told to end. Returns the exit status; throws what the operator must read when it cannot start. */
export async function serve(config: Config, stop: Promise<NodeJS.Signals>): Promise<number> {
  // a reader of the log that stands still must not make squashd do so: lines beyond the limit are lost
  const output = pino.destination({ dest: 2, sync: false, maxLength: 4 * 1_048_576 });
  const log = pino({ level: config.logLevel, base: null, timestamp: pino.stdTimeFunctions.isoTime }, output);
  try {
    return await serveWith(config, stop, log);
  } finally {
    output.flushSync();
  }
}

async function serveWith(config: Config, stop: Promise<NodeJS.Signals>, log: Logger): Promise<number> {
  // the API's libraries are read while sq-host, nft and the threads start, which takes as long
  const http = import("./http/app.js");
  http.catch(() => undefined); // reported where it is awaited
  const version = readVersion();
  const { dataDir, defaultLayers } = config;
  const formats = mappableFormats(release());
  const catalog = new DirectoryCatalog(dataDir, { defaultLayers, formats, prefer: config.moduleFormat });
  const metrics = new Metrics();
  const writeEvent = logEvents(log);
  const emit: Emit = (event) => {
    writeEvent(event);
    metrics.observe(event);
  };
  const remote = await RemoteHouse.open({ config, catalog, emit, warn: (text) => log.warn(text) });
  const daemon = await Daemon.start({
    config,
    version,
    catalog: remote?.catalog() ?? catalog,
    ...(remote !== null && { fetchSnapshot: (id, label, signal) => remote.fetchSnapshot(id, label, signal) }),
    collectFiles: (options) => collectFiles(dataDir, options),
    emit: (event) => {
      emit(event);
      remote?.observe(event);
    },
    ...(remote !== null && { custody: (kernel) => remote.custody(kernel) }),
    report: (error) => {
      if (typeof error === "string") log.warn(error);
      else log.error({ err: error }, "network");
    },
    reapFailed: (sandbox, error) => log.error({ sandbox, err: error }, "cannot destroy an expired sandbox"),
  });
  metrics.watch(daemon.gauges);
  if (remote !== null) metrics.watchBucket(() => remote.counts);
  const modules = new ModuleHouse(
    catalog,
    { sandboxes: daemon.sandboxes, captures: daemon.time.captures },
    {
      config,
      snapshots: daemon.time.promotions,
      remote,
      canUseErofs: formats.includes("erofs"),
      warn: (text) => log.warn(text),
      report: (error) => log.error({ err: error }, "job"),
    },
  );
  let app: FastifyInstance | null = null;
  let unsaved = false;
  try {
    const { makeApp } = await http;
    await modules.start();
    remote?.connect({
      ...daemon.snapshotParts,
      modules: modules.uses,
      takes: daemon.time.snapshots,
      captures: daemon.time.captures,
      arrived: (name, format) => modules.arrived(name, format),
      track: (plan) => modules.track(plan),
    });
    app = await makeApp({
      version,
      sandboxes: daemon.sandboxes,
      time: daemon.time,
      diffs: new DiffAnswers(daemon.time.diffs),
      modules,
      jobs: modules.jobs,
      health: daemon,
      decisions: daemon.decisions,
      secrets: daemon.secrets,
      authorities: daemon.secrets,
      ...(remote !== null && { remote }),
      metrics,
      webDir,
      authToken: config.authToken,
      checkOrigin: config.listen.kind === "tcp" && isLoopback(config.listen.host),
      reportBug: (error, route) => log.error({ err: error, route }, "bug"),
    });
    await listen(app, config);
    process.stdout.write(await greeting(config, version, catalog));
    const signal = await stop;
    log.info({ signal }, "shutting down");
  } finally {
    unsaved = await shutDown(
      { app, daemon, modules, remote },
      { log, drainS: config.ephemeral === "1" ? config.drainS : 0 },
    );
  }
  return unsaved ? 1 : 0;
}

async function listen(app: FastifyInstance, { listen: address }: Config): Promise<void> {
  try {
    if (address.kind === "tcp") {
      await app.listen({ host: address.host, port: address.port });
      return;
    }
    await clearSocketFile(address.path);
    // whoever can open it is root to sandboxes; there is no moment at which others could
    const before = process.umask(0o177);
    try {
      await app.listen({ path: address.path });
    } finally {
      process.umask(before);
    }
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    if (code === undefined) throw cause;
    const hint = code === "EADDRINUSE" ? "another process listens there; set SQUASH_LISTEN or SQUASH_PORT" : message;
    throw new Error(`Cannot listen on ${urlOf(address)}: ${hint}`, { cause });
  }
}

async function greeting(config: Config, version: string, catalog: DirectoryCatalog): Promise<string> {
  const url = urlOf(config.listen);
  const names = (await catalog.list()).map(({ name }) => name);
  const target = config.listen.kind === "unix" ? `--unix-socket ${config.listen.path} http://localhost` : url;
  const auth = config.authToken === "" ? "" : ' -H "Authorization: Bearer $SQUASH_AUTH_TOKEN"';
  const lines = [
    `squashd ${version} is ready`,
    `  listens on  ${url}`,
    `  data        ${config.dataDir}`,
    `  modules     ${names.length === 0 ? "none: make one with sq mkbase busybox" : names.join(", ")}`,
    `  try         curl -s${auth} ${target}/v1/sandboxes -H 'Content-Type: application/json' -d '{"id":"hello"}'`,
  ];
  return `${lines.join("\n")}\n`;
}

/** Lets answers out, then stops; sandboxes stay as they are for the next squashd, or are saved for others. Whether some could not be. */
async function shutDown(
  parts: { app: FastifyInstance | null; daemon: Daemon; modules: ModuleHouse; remote: RemoteHouse | null },
  { log, drainS }: { readonly log: Logger; readonly drainS: number },
): Promise<boolean> {
  const { app, daemon, modules, remote } = parts;
  const late = setTimeout(
    () => {
      log.error("could not shut down in time; the next start will clean up");
      process.exit(1);
    },
    drainMs + drainS * 1_000,
  );
  late.unref();
  const unsaved = (await remote?.drain()) ?? new Map<string, string>();
  for (const [sandbox, reason] of unsaved) {
    log.error({ sandbox, reason }, "could not be saved");
    process.stderr.write(`squashd: sandbox "${sandbox}" could not be saved: ${reason}\n`);
  }
  // the domain first: it ends running commands, whose callers then get their answers
  await Promise.all([daemon.sandboxes.close(), modules.close(), remote?.close()]);
  await app?.close();
  await daemon.close();
  clearTimeout(late);
  return unsaved.size > 0;
}

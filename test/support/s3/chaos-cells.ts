import { existsSync, readdirSync, readFileSync, type Dirent } from "node:fs";
import { join } from "node:path";
import { doubles, type ManifestReading, type ManifestWrite } from "./chaos-history.js";
import type { S3Server } from "./s3-server.js";

const everyMs = 20;
const unified = "/sys/fs/cgroup";

interface Program {
  readonly id: string;
  readonly machine: string;
  readonly pid: string;
}

/** Looks from outside, all the time, which programs of which sandboxes run below the cgroups of these machines. */
export class CellWatch implements Disposable {
  readonly #found = new Set<string>();
  looks = 0;
  readonly #marks: readonly string[];
  readonly #timer: NodeJS.Timeout;

  constructor(marks: readonly string[]) {
    this.#marks = marks;
    this.#timer = setInterval(() => this.#look(), everyMs);
  }

  /** What ran twice, once each. */
  get found(): string[] {
    return [...this.#found];
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }

  #look(): void {
    this.looks++;
    const programs = this.#marks.flatMap((mark) => programsOf(mark));
    for (const id of doubles(programs)) {
      // one by one is not all at once: what was there first must be there still
      const still = programs.filter((one) => one.id === id && idOf(one.pid) === id && !isFrozen(one));
      if (doubles(still).length > 0)
        this.#found.add(`"${id}" runs on ${[...new Set(still.map(({ machine }) => machine))].join(" and ")}`);
    }
  }
}

function programsOf(mark: string): Program[] {
  const memory = join(unified, "memory", mark);
  const root = existsSync(memory) ? memory : join(unified, mark);
  const cells = list(root).filter((entry) => entry.isDirectory() && /^c\d+$/.test(entry.name));
  return cells.flatMap(({ name }) => {
    const pids = read(join(root, name, "cgroup.procs")).split("\n");
    return pids.flatMap((pid) => {
      const id = pid === "" ? null : idOf(pid);
      return id === null ? [] : [{ id, machine: mark, pid }];
    });
  });
}

/** Of which sandbox it is, by the files that it has; null when it has none, such as one that has ended. */
function idOf(pid: string): string | null {
  const name = read(`/proc/${pid}/root/etc/hostname`).trim();
  return name === "" ? null : name;
}

function isFrozen({ pid }: Program): boolean {
  const groups = read(`/proc/${pid}/cgroup`).split("\n");
  const [, v1] = groups.map((line) => /^\d+:freezer:(.*)$/.exec(line)).find((match) => match !== null) ?? [];
  if (v1 !== undefined) return !read(join(unified, "freezer", v1, "freezer.state")).startsWith("THAWED");
  const [, v2 = ""] = groups.map((line) => /^0::(.*)$/.exec(line)).find((match) => match !== null) ?? [];
  return read(join(unified, v2, "cgroup.events")).includes("frozen 1");
}

function list(path: string): Dirent[] {
  try {
    return readdirSync(path, { withFileTypes: true });
  } catch {
    return [];
  }
}

function read(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}

const manifest = /^team\/sandboxes\/([^/]+)\/manifest\.json$/;

/** Those writes of manifests that the store has done. */
export async function manifestWrites(server: S3Server): Promise<ManifestWrite[]> {
  const writes: ManifestWrite[] = [];
  for (const { operation, key, status, headers } of await server.seen()) {
    const [, id] = manifest.exec(key) ?? [];
    if (id === undefined || operation !== "PutObject" || status !== 200) continue;
    const isFirst = headers["if-none-match"] === "*";
    const replaces = isFirst ? "" : (headers["if-match"]?.toString().replaceAll('"', "") ?? null);
    writes.push({ id, replaces });
  }
  return writes;
}

/** Reads manifests again and again. */
export class ManifestWatch implements AsyncDisposable {
  readonly readings: ManifestReading[] = [];
  readonly #server: S3Server;
  readonly #ids: () => Iterable<string>;
  readonly #stop = new AbortController();
  readonly #running: Promise<void>;

  constructor(server: S3Server, ids: () => Iterable<string>) {
    this.#server = server;
    this.#ids = ids;
    this.#running = this.#run();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }

  async #run(): Promise<void> {
    while (!this.#stop.signal.aborted) {
      for (const id of this.#ids()) await this.#read(id);
      await new Promise((done) => setTimeout(done, 100));
    }
  }

  async #read(id: string): Promise<void> {
    try {
      const [file] = await this.#server.filesOf(`team/sandboxes/${id}/manifest.json`);
      const { epoch, lease } = JSON.parse(readFileSync(file?.path ?? "", "utf8")) as {
        epoch: number;
        lease: { machine: string; session: string } | null;
      };
      this.readings.push({ id, epoch, holder: lease && `${lease.machine} ${lease.session}` });
    } catch {
      // not there yet, or replaced while it was read
    }
  }
}

import { isSquashError, type SquashError } from "@squash/sdk/errors";
import type { JobContext } from "../core/jobs.js";
import type { Sandboxes } from "../core/sandboxes.js";
import type { DirectoryCatalog } from "../modules/catalog.js";
import { attempt } from "./attempt.js";
import type { BucketParts } from "./bucket-parts.js";
import type { RemoteModules } from "./remote-modules.js";
import type { RemoteSnapshots } from "./remote-snapshots.js";
import type { RemovedModules } from "./removed-modules.js";

export interface SyncParts {
  readonly catalog: DirectoryCatalog;
  readonly sandboxes: Sandboxes;
  readonly bucket: BucketParts;
  readonly modules: RemoteModules;
  readonly snapshots: RemoteSnapshots;
  readonly removed: RemovedModules;
  /** sends a module or snapshot, so that no sweep takes it away */
  readonly push: {
    module: (name: string, context: JobContext) => Promise<void>;
    snapshot: (id: string, label: string, context: JobContext) => Promise<void>;
  };
  /** whether something is still to be removed from the bucket, which must not come back then */
  readonly isLeaving: (id: string, label: string) => boolean;
}

/** What a comparison did. */
export interface Synced {
  pushed: number;
  pulled: number;
  /** what could not be done, each with the reason */
  readonly problems: string[];
}

/** which of a sandbox's snapshots are meant */
type Scope = "all" | { readonly sandbox: string };

/** Compares this machine with the bucket, and sends and fetches what one has and the other has not. Nothing is replaced anywhere. */
export class Sync {
  readonly #parts: SyncParts;
  /** snapshots in the bucket that are of an earlier sandbox of the same name, by their etags */
  readonly #foreign = new Map<string, string>();
  /** modules of older daemons that cannot be used, and why */
  readonly #unusable = new Map<string, { readonly etag: string; readonly error: SquashError }>();

  constructor(parts: SyncParts) {
    this.#parts = parts;
  }

  /** Does all that can be done. Throws where the bucket cannot be asked at all. */
  async run(scope: Scope, context: JobContext): Promise<Synced> {
    const synced: Synced = { pushed: 0, pulled: 0, problems: [] };
    if (scope === "all") await this.#modules(synced, context);
    await this.#snapshots(scope, synced, context);
    return synced;
  }

  async #modules(synced: Synced, context: JobContext): Promise<void> {
    const { catalog, bucket, modules, removed, push } = this.#parts;
    const { modules: remote, problems } = await bucket.modules.list(context.signal);
    for (const [name, error] of problems) synced.problems.push(`module ${name}: ${error.message}`);
    const there = new Map(remote.map((each) => [each.name, each]));
    const older = await this.#olderModules(context.signal);
    const here = new Set<string>();
    for (const { name, problem } of await catalog.list()) {
      here.add(name);
      const found = there.get(name);
      if (found !== undefined && modules.isSame(name, found)) continue;
      if (found !== undefined) {
        if (!this.#isTwin(name))
          synced.problems.push(`module ${name}: the bucket has another one; nothing is replaced`);
        continue;
      }
      if (problem !== null || problems.has(name) || older.has(name)) continue;
      if (await attempt(synced.problems, `module ${name}`, context, () => push.module(name, context))) synced.pushed++;
    }
    for (const { name, sha256 } of remote) {
      if (here.has(name) || removed.has(name, sha256)) continue;
      const pull = (): Promise<void> => modules.pull(name, { replace: false }, context);
      if (await attempt(synced.problems, `module ${name}`, context, pull)) synced.pulled++;
    }
    for (const [name, etag] of older) {
      if (here.has(name) || there.has(name) || problems.has(name) || removed.knows(name)) continue;
      const pull = (): Promise<void> => this.#pullOlder(name, etag, context);
      if (await attempt(synced.problems, `module ${name}`, context, pull)) synced.pulled++;
    }
  }

  /** The etags of older daemons' modules, by name. */
  async #olderModules(signal: AbortSignal): Promise<Map<string, string>> {
    const etags = new Map<string, string>();
    for await (const { name, etag } of this.#parts.bucket.older.modules(signal)) etags.set(name, etag);
    return etags;
  }

  /** One that cannot be used is not fetched and unpacked again each time. */
  async #pullOlder(name: string, etag: string, context: JobContext): Promise<void> {
    const refused = this.#unusable.get(name);
    if (refused?.etag === etag) throw refused.error;
    try {
      await this.#parts.modules.pull(name, { replace: false }, context);
    } catch (error) {
      if (isSquashError(error) && error.code === "s3_object_invalid") this.#unusable.set(name, { etag, error });
      throw error;
    }
  }

  /** Whether what would be sent cannot be told, since there is no manifest. */
  #isTwin(name: string): boolean {
    return this.#parts.modules.local(name) === null;
  }

  async #snapshots(scope: Scope, synced: Synced, context: JobContext): Promise<void> {
    const { sandboxes, bucket, push } = this.#parts;
    const wanted = sandboxes
      .all()
      .filter(({ id, record }) => record !== null && (scope === "all" || scope.sandbox === id));
    const there = new Map<string, string>();
    for await (const { id, label, etag } of bucket.snapshots.all(context.signal)) there.set(`${id}/${label}`, etag);
    for (const { id, snapshots, record } of wanted) {
      for (const { label } of snapshots) {
        if (there.has(`${id}/${label}`)) continue;
        const send = (): Promise<void> => push.snapshot(id, label, context);
        if (await attempt(synced.problems, `snapshot ${id}@${label}`, context, send)) synced.pushed++;
      }
      const known = new Set(snapshots.map(({ label }) => label));
      for (const [place, etag] of there) {
        const [owner, label = ""] = place.split("/");
        if (owner !== id || known.has(label) || this.#parts.isLeaving(id, label)) continue;
        const fetch = (): Promise<boolean> =>
          this.#fetch({ id, label, etag, created: record?.created ?? "" }, scope, context);
        if (await attempt(synced.problems, `snapshot ${id}@${label}`, context, fetch)) synced.pulled++;
      }
    }
    if (scope !== "all") await this.#olderSnapshots(scope.sandbox, synced, context);
  }

  /** Those of older daemons do not say of which sandbox of the name they are: they come only when they are asked for. */
  async #olderSnapshots(sandbox: string, synced: Synced, context: JobContext): Promise<void> {
    const { sandboxes, bucket, snapshots } = this.#parts;
    for await (const { id, label } of bucket.older.snapshots(context.signal, sandbox)) {
      if (sandboxes.find(id).snapshots.some((one) => one.label === label)) continue;
      const fetch = (): Promise<void> => snapshots.pull(id, label, context);
      if (await attempt(synced.problems, `snapshot ${id}@${label}`, context, fetch)) synced.pulled++;
    }
  }

  /** Whether it was one of this very sandbox, in distinction to an earlier one of its name; those come only when they are asked for. */
  async #fetch(
    { id, label, etag, created }: { id: string; label: string; etag: string; created: string },
    scope: Scope,
    context: JobContext,
  ): Promise<boolean> {
    const place = `${id}/${label}`;
    if (scope === "all") {
      if (this.#foreign.get(place) === etag) return false;
      const found = await this.#parts.bucket.snapshots.read(id, label, context.signal);
      if (found?.sandboxCreated !== created) {
        this.#foreign.set(place, etag);
        return false;
      }
    }
    await this.#parts.snapshots.pull(id, label, context);
    return true;
  }
}

import type { ForkRequest, SandboxInfo } from "@squash/sdk/protocol";
import type { LabelsInUse } from "./labels-in-use.js";
import { randomHex } from "./random.js";
import { planOfRecord } from "./sandbox-plan.js";
import type { Sandboxes } from "./sandboxes.js";
import type { SnapshotImages } from "./snapshot-images.js";
import { findSnapshot, type Moment, type Snapshots } from "./snapshots.js";

interface Origin extends Pick<Moment, "layers" | "images"> {
  /** in which the forks differ from it */
  readonly more: { readonly secrets?: readonly string[] | null };
  /** absent where the files are there, and outlast a crash of the machine, already */
  readonly taken?: Moment["taken"];
  readonly sync?: Moment["sync"];
}

/** Copies of sandboxes: they share the files of one moment as layers, and differ from then on. */
export class Forks {
  readonly #sandboxes: Sandboxes;
  readonly #snapshots: Snapshots;
  readonly #images: SnapshotImages;
  readonly #labels: LabelsInUse;

  constructor(parts: {
    readonly sandboxes: Sandboxes;
    readonly snapshots: Snapshots;
    readonly images: SnapshotImages;
    readonly labels: LabelsInUse;
  }) {
    this.#labels = parts.labels;
    this.#sandboxes = parts.sandboxes;
    this.#snapshots = parts.snapshots;
    this.#images = parts.images;
  }

  /** All forks or none. Throws `snapshot_not_found`, and what a creation throws. */
  async fork(id: string, request: ForkRequest, signal: AbortSignal): Promise<SandboxInfo[]> {
    const { from, target_id, count = 1, secrets } = request;
    if (secrets !== undefined) this.#sandboxes.checkSecrets(secrets);
    const more = secrets === undefined ? {} : { secrets };
    const ids = target_id === undefined ? Array.from({ length: count }, () => forkId(id)) : [target_id];
    if (from === undefined)
      return this.#snapshots.nextMoment(id, async (moment) => {
        // many would take the processors from the capture, for which the sandbox stands still
        if (ids.length > 1) await moment.taken;
        return this.#make(id, ids, { ...moment, more }, signal);
      });
    const sandbox = this.#sandboxes.find(id);
    const snapshot = findSnapshot(sandbox, from);
    const make = (): Promise<SandboxInfo[]> => this.#make(`${id}@${from}`, ids, { ...snapshot, more }, signal);
    return this.#labels.use(sandbox, from, () => this.#images.hold(snapshot.images, make));
  }

  async #make(from: string, ids: readonly string[], origin: Origin, signal: AbortSignal): Promise<SandboxInfo[]> {
    const making = Promise.allSettled(ids.map((id) => this.#one(id, from, origin, signal)));
    const [synced] = await Promise.allSettled([origin.sync?.(), making]);
    const made = await making;
    const failure = [synced, ...made].find((one) => one.status === "rejected");
    const infos = made.flatMap((one) => (one.status === "fulfilled" ? [one.value] : []));
    if (failure === undefined) return infos;
    await Promise.allSettled(infos.map(({ id }) => this.#sandboxes.destroy(id)));
    throw failure.reason;
  }

  async #one(id: string, from: string, origin: Origin, signal: AbortSignal): Promise<SandboxInfo> {
    const { layers, images, more, taken: files } = origin;
    const { record } = this.#sandboxes.find(from.split("@", 1)[0] ?? from);
    if (record === null) throw new Error(`sandbox "${from}" has no record`);
    const now = new Date().toISOString();
    const fresh = { id, created: now, lastActive: now, restored: null, head: null, restarts: 0, forkedFrom: from };
    const upper = { ...record.upper, generation: 0 };
    const plan = { ...planOfRecord(record), ...fresh, requestedLayers: layers, snapshots: images, upper, ...more };
    return this.#sandboxes.createPlanned(plan, signal, files === undefined ? {} : { files });
  }
}

/** An id that nobody has. */
function forkId(id: string): string {
  return `${id.slice(0, 50)}-${randomHex(5)}`;
}

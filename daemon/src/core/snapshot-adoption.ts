import { SquashError } from "@squash/sdk/errors";
import type { SandboxStore, SnapshotRecord } from "./ports.js";
import type { Sandboxes } from "./sandboxes.js";
import { snapshotLimit } from "./snapshots.js";

/** Takes snapshots in that come from elsewhere. */
export class SnapshotAdoption {
  readonly #sandboxes: Sandboxes;
  readonly #store: Pick<SandboxStore, "writeSnapshots">;

  constructor(parts: { readonly sandboxes: Sandboxes; readonly store: Pick<SandboxStore, "writeSnapshots"> }) {
    this.#sandboxes = parts.sandboxes;
    this.#store = parts.store;
  }

  /** Adds a snapshot to a sandbox's history, by when it was taken; its images must be here, and held. Idempotent. Throws `snapshot_limit`. */
  async adopt(id: string, snapshot: SnapshotRecord): Promise<void> {
    const sandbox = this.#sandboxes.find(id);
    await this.#sandboxes.exclusively(id, async () => {
      const { snapshots } = sandbox;
      if (snapshots.some(({ label }) => label === snapshot.label)) return;
      if (snapshots.length >= snapshotLimit)
        throw new SquashError(
          "snapshot_limit",
          `Cannot take snapshot "${snapshot.label}" of "${id}" in: it has ${snapshotLimit}; delete some`,
        );
      const isKnown = snapshots.some(({ label }) => label === snapshot.parent);
      const adopted = isKnown ? snapshot : { ...snapshot, parent: null };
      const next = [...snapshots, adopted].toSorted((a, b) => Date.parse(a.created) - Date.parse(b.created));
      await this.#store.writeSnapshots(id, next);
      sandbox.snapshots = next;
    });
  }
}

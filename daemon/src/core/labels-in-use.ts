import type { Sandbox } from "./sandbox.js";

/** Snapshots that running operations are about to use, or use, so that the retention leaves them alone. */
export class LabelsInUse {
  readonly #counts = new WeakMap<Sandbox, Map<string, number>>();

  /** Counts a user of a snapshot while `work` runs. */
  async use<T>(sandbox: Sandbox, label: string, work: () => Promise<T>): Promise<T> {
    const release = this.add(sandbox, label);
    try {
      return await work();
    } finally {
      release();
    }
  }

  /** Counts a user of a snapshot until the answer is called, once. */
  add(sandbox: Sandbox, label: string): () => void {
    const counts = this.#counts.get(sandbox) ?? new Map<string, number>();
    this.#counts.set(sandbox, counts);
    counts.set(label, (counts.get(label) ?? 0) + 1);
    return () => {
      const left = (counts.get(label) ?? 1) - 1;
      if (left === 0) counts.delete(label);
      else counts.set(label, left);
    };
  }

  has(sandbox: Sandbox, label: string): boolean {
    return this.#counts.get(sandbox)?.has(label) ?? false;
  }
}

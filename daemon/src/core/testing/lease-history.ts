/** What was written of a sandbox at some moment, as far as the rules are about it. */
interface Version {
  readonly epoch: number;
  /** who has it; of a released one who released it */
  readonly owner: string;
  /** label of the latest snapshot: a number that grows by one with each, a dot, and who saved it */
  readonly label: string;
}

/** All that happened, in the order of true time, and what of it breaks the rules. */
export class LeaseHistory {
  readonly violations: string[] = [];
  /** events by their kind */
  readonly counts = new Map<string, number>();
  /** until when, in true time, each machine may run each sandbox */
  readonly #running = new Map<string, Map<string, number>>();
  readonly #versions = new Map<string, Version[]>();

  get events(): number {
    return [...this.counts.values()].reduce((sum, count) => sum + count, 0);
  }

  note(kind: string, _machine: string, detail = ""): void {
    const name = detail === "" ? kind : `${kind}: ${detail}`;
    this.counts.set(name, (this.counts.get(name) ?? 0) + 1);
  }

  /** A machine may run a sandbox from now on, until then. */
  extended(id: string, machine: string, now: number, until: number): void {
    this.note("extended", machine);
    if (until <= now) this.#broken(now, `${machine} was told that it may run ${id} until ${until}`);
    const running = this.#running.get(id) ?? new Map<string, number>();
    this.#running.set(id, running);
    for (const [other, end] of running)
      if (other !== machine && end > now)
        this.#broken(now, `${machine} may run ${id}, and so may ${other} until ${end}`);
    running.set(machine, Math.max(until, running.get(machine) ?? 0));
  }

  ended(id: string, machine: string, now: number, how: string): void {
    this.note(how, machine);
    const running = this.#running.get(id);
    running?.set(machine, Math.min(now, running.get(machine) ?? 0));
  }

  /** The store has taken a write. */
  written(key: string, body: Buffer, now: number): void {
    this.note("written", "");
    const { epoch, lease, sandbox } = JSON.parse(body.toString()) as {
      readonly epoch: number;
      readonly lease: { readonly machine: string; readonly session: string } | null;
      readonly sandbox: { readonly latest_snapshot: string } | null;
    };
    const versions = this.#versions.get(key) ?? [];
    this.#versions.set(key, versions);
    const before = versions.at(-1) ?? { epoch: 0, owner: "", label: "0." };
    const owner = lease === null ? before.owner : `${lease.machine} ${lease.session}`;
    const label = sandbox?.latest_snapshot ?? "0.";
    versions.push({ epoch, owner, label });
    if (epoch < before.epoch) this.#broken(now, `${key} went from epoch ${before.epoch} back to ${epoch}`);
    if (epoch === before.epoch && owner !== before.owner)
      this.#broken(now, `${owner} wrote ${key} in the epoch of ${before.owner}`);
    const step = numberOf(label) - numberOf(before.label);
    if (step !== 0 && step !== 1) this.#broken(now, `${key} went from snapshot ${before.label} to ${label}`);
  }

  /** A machine was told that what it saved is saved. */
  saved(id: string, machine: string, label: string): void {
    this.note("saved", machine);
    const versions = this.#versions.get(`sandboxes/${id}/manifest.json`) ?? [];
    if (!versions.some((version) => version.label === label)) this.violations.push(`${label} of ${id} is not saved`);
    if (numberOf(versions.at(-1)?.label ?? "0.") < numberOf(label)) this.violations.push(`${label} of ${id} is lost`);
  }

  #broken(now: number, what: string): void {
    this.violations.push(`${now}: ${what}`);
  }
}

function numberOf(label: string): number {
  return Number(label.split(".")[0]);
}

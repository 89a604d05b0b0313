import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { crashFolder, workFile, type Fate, type Orders, type Step } from "./crash-orders.js";
import { patience } from "./patience.js";
import { repositoryRoot } from "./root.js";
import type { TestSquashd } from "./squashd.js";

const script = join(repositoryRoot, "build/test/test/support/crash-points-host.js");
const deadlineMs = 20_000 * patience;

/** Settings that make a squashd follow orders; it has no code for that. */
export const watchedEnv = { NODE_OPTIONS: `--import=${pathToFileURL(script).href}` };

/** A moment between two changes, at which an operation can be cut off. */
export interface Moment {
  readonly place: string;
  /** all places that are this moment, for people */
  readonly name: string;
}

/** Has operations of a squashd written down, stopped, or left without sq-host, at named places. */
export class CrashPoints {
  readonly #folder: string;

  constructor(squashd: TestSquashd) {
    this.#folder = join(squashd.home, crashFolder);
    mkdirSync(this.#folder, { recursive: true });
  }

  /** Runs `work`, and returns the steps that the operation in it took. */
  async record(operation: string, work: () => Promise<unknown>): Promise<Step[]> {
    this.#order({ record: true });
    await work();
    this.clear();
    const steps = this.#lines("steps.jsonl").map((line) => JSON.parse(line) as Step);
    return steps.filter((step) => step.operation === operation);
  }

  stopAt(stop: Readonly<Record<string, string>>): void {
    this.#order({ stop });
  }

  dieAt(fate: Fate, at: Readonly<Record<string, string>>): void {
    this.#order({ host: { fate, at } });
  }

  clear(): void {
    for (const file of ["orders.json", "stopped"]) rmSync(join(this.#folder, file), { force: true });
  }

  /** Waits until squashd does nothing any more, in the background either, so that the next operation takes the same steps each time. */
  async rest(): Promise<void> {
    for (const deadline = Date.now() + deadlineMs; ;) {
      const work = this.#lines(workFile).join("");
      if (work === "0") return;
      if (Date.now() > deadline) throw new Error(`squashd has not come to rest: ${work} pieces of work are under way`);
      await new Promise((done) => setTimeout(done, 5));
    }
  }

  /** Waits until each operation has come to its place, or ended without, which takes no longer than a deadline. Returns those that have. */
  async stopped(ends: readonly Promise<unknown>[], deadlineMs: number): Promise<string[]> {
    let ended = 0;
    const end = (): void => {
      ended++;
    };
    for (const each of ends) each.then(end, end);
    for (const deadline = Date.now() + deadlineMs; ;) {
      const found = this.#lines("stopped");
      if (found.length + ended >= ends.length || Date.now() > deadline) return found;
      await new Promise((done) => setTimeout(done, 5));
    }
  }

  #order(orders: Orders): void {
    this.clear();
    rmSync(join(this.#folder, "steps.jsonl"), { force: true });
    writeFileSync(join(this.#folder, "orders.json"), JSON.stringify(orders));
  }

  #lines(file: string): string[] {
    const path = join(this.#folder, file);
    return existsSync(path) ? readFileSync(path, "utf8").trimEnd().split("\n") : [];
  }
}

/**
 * The moments at which an operation is cut off: before all, and after each change. What comes before the next change is the same moment.
 * Of many changes of one name in a row, such as the pieces of an upload, the first and the last.
 */
export function momentsOf(steps: readonly Step[]): Moment[] {
  const moments: { place: string; name: string; kind: string }[] = [];
  for (const { place, isChange } of steps) {
    const last = moments.at(-1);
    const kind = place.replace(/ #\d+$/, "");
    if (last === undefined || isChange) moments.push({ place, name: place, kind });
    else last.name += ` = ${place}`;
  }
  return moments.filter(({ kind }, at) => moments[at - 1]?.kind !== kind || moments[at + 1]?.kind !== kind);
}

/** The requests to sq-host in an operation's steps. */
export function requestsOf(steps: readonly Step[]): string[] {
  return steps.map(({ place }) => place).filter((place) => /sq-host \w+ next #\d+$/.test(place));
}

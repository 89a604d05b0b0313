import { readFile } from "node:fs/promises";
import { SecretUses, type UseFigures } from "../core/secrets/secret-uses.js";
import type { SecretUse } from "../core/secrets/secret-use.js";
import { writeAtomically } from "../store/atomic-file.js";

const settleMs = 5_000;

/** Figures that outlive squashd, in a file; a squashd that is killed loses those of the last seconds. */
export class KeptUses {
  readonly figures: SecretUses;
  readonly #path: string;
  readonly #report: (error: unknown) => void;
  #timer: NodeJS.Timeout | null = null;
  #writing: Promise<void> = Promise.resolve();

  private constructor(path: string, figures: SecretUses, report: (error: unknown) => void) {
    this.#path = path;
    this.figures = figures;
    this.#report = report;
  }

  /** Begins anew where the file cannot be read: only figures are lost. */
  static async open(path: string, report: (error: unknown) => void): Promise<KeptUses> {
    return new KeptUses(path, new SecretUses(await readFigures(path)), report);
  }

  count(use: SecretUse): void {
    this.figures.count(use);
    this.#timer ??= setTimeout(() => void this.#flush(), settleMs).unref();
  }

  async close(): Promise<void> {
    if (this.#timer !== null) await this.#flush();
  }

  #flush(): Promise<void> {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    const text = `${JSON.stringify(Object.fromEntries(this.figures.all()))}\n`;
    this.#writing = this.#writing.then(() => writeAtomically(this.#path, text, { durable: false })).catch(this.#report);
    return this.#writing;
  }
}

async function readFigures(path: string): Promise<[string, UseFigures][]> {
  try {
    const found = JSON.parse(await readFile(path, "utf8")) as Record<string, Partial<UseFigures>>;
    return Object.entries(found).map(([name, { uses, refusals, lastUsed }]) => [
      name,
      { uses: uses ?? 0, refusals: refusals ?? 0, lastUsed: lastUsed ?? null },
    ]);
  } catch {
    return []; // absent, or cut off by a crash
  }
}

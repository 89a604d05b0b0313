import { readFile } from "node:fs/promises";
import { writeAtomically } from "../store/atomic-file.js";

/** Modules that were removed here though the bucket has them: they come back only when somebody wants them. */
export class RemovedModules {
  readonly #path: string;
  readonly #digests: Map<string, string>;

  private constructor(path: string, digests: Map<string, string>) {
    this.#path = path;
    this.#digests = digests;
  }

  static async open(path: string): Promise<RemovedModules> {
    return new RemovedModules(path, parse(await readFile(path, "utf8").catch(() => "")));
  }

  /** Whether it was that very module. */
  has(name: string, sha256: string): boolean {
    return this.#digests.get(name) === sha256;
  }

  /** Whether a module of that name was removed, whichever. */
  knows(name: string): boolean {
    return this.#digests.has(name);
  }

  async add(name: string, sha256: string): Promise<void> {
    this.#digests.set(name, sha256);
    await this.#save();
  }

  async forget(name: string): Promise<void> {
    if (this.#digests.delete(name)) await this.#save();
  }

  async #save(): Promise<void> {
    const text = `${JSON.stringify({ version: 1, modules: Object.fromEntries(this.#digests) })}\n`;
    await writeAtomically(this.#path, text, { durable: true });
  }
}

/** What cannot be read counts as none: a module comes back, which loses nothing. */
function parse(text: string): Map<string, string> {
  try {
    const { version, modules } = JSON.parse(text) as { version?: unknown; modules?: unknown };
    if (version !== 1 || typeof modules !== "object" || modules === null) return new Map();
    return new Map(Object.entries(modules).filter((each): each is [string, string] => typeof each[1] === "string"));
  } catch {
    return new Map();
  }
}

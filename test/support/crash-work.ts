import { writeFileSync } from "node:fs";

/** by when what follows upon some work has begun, so that in between it does not look as if there were none */
const followMs = 5;

/** Keeps in a file how many pieces of work are under way in a squashd under test: its start, requests, and what is done in the background. */
export class WorkCount {
  readonly #path: string;
  #count = 1;

  constructor(path: string) {
    this.#path = path;
  }

  beginStart(): void {
    this.#tell();
  }

  /** Counts some work until it has ended. */
  follow(work: Promise<unknown>): void {
    this.#count++;
    this.#tell();
    const over = (): void => {
      setTimeout(() => {
        this.#count--;
        this.#tell();
      }, followMs);
    };
    work.then(over, over);
  }

  /** Says that the start will be over when this is. */
  endStart(work: Promise<unknown>): void {
    this.#count--;
    this.follow(work);
  }

  #tell(): void {
    writeFileSync(this.#path, String(this.#count));
  }
}

import { readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { expect } from "vitest";
import type { Sandbox } from "@squash/sdk";
import { print } from "./crash-trials.js";
import type { TestSquashd } from "./squashd.js";

/** one more than a snapshot may be made of before some are merged */
const images = 9;
const id = "deep";
const labels = Array.from({ length: images }, (_, at) => `s${at}`);

/** A sandbox whose last snapshot is made of so many images that they are merged. */
export class DeepChain {
  readonly #squashd: TestSquashd;
  readonly #sandbox: Sandbox;

  constructor(squashd: TestSquashd) {
    this.#squashd = squashd;
    this.#sandbox = squashd.client.sandbox(id);
  }

  /** Makes it anew. */
  async make(): Promise<void> {
    const { client } = this.#squashd;
    if ((await client.list()).length > 0) await this.#sandbox.destroy();
    await client.create({ id, layers: ["000-base-test"] });
    for (const [at, label] of labels.entries()) {
      await print(this.#sandbox, `echo ${at} >/last; echo ${at} >/file-${at}`);
      await this.#sandbox.snapshot({ label });
      if (at < images - 1) await this.#sandbox.restore(label);
    }
  }

  /** Whether there is none that could be merged. */
  async isMerged(): Promise<boolean> {
    if ((await this.#squashd.client.list()).length === 0) return true;
    return (await this.#sandbox.history()).some(({ label, depth }) => label === labels.at(-1) && depth < images);
  }

  /** As if no digest had been taken yet. */
  unseal(): void {
    const folder = join(this.#squashd.dataDir, "snapshots");
    for (const name of readdirSync(folder)) if (name.endsWith(".seal")) rmSync(join(folder, name));
  }

  /** Every snapshot and the sandbox have the files that they had. */
  async check(): Promise<void> {
    expect((await this.#sandbox.history()).map(({ label }) => label)).toEqual(labels);
    expect(await print(this.#sandbox, "cat /last; ls -d /file-*")).toBe(listing(images - 1));
    for (const [at, from] of labels.entries()) {
      const { added, modified, deleted } = await this.#sandbox.diff({ from });
      const names = added.map(({ path }) => path).toSorted();
      expect(names).toEqual(Array.from({ length: images - 1 - at }, (_, more) => `/file-${at + 1 + more}`));
      expect([modified.length, deleted.length], from).toEqual([at === images - 1 ? 0 : 1, 0]);
    }
  }
}

function listing(last: number): string {
  const files = Array.from({ length: last + 1 }, (_, at) => `/file-${at}\n`);
  return [`${last}\n`, ...files].join("");
}

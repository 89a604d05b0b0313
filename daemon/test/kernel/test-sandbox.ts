import { mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import type { CellProcess } from "../../src/core/ports.js";
import { usableFormat, type TestKernel } from "./test-kernel.js";

const mebibyte = 1_048_576;

export interface TestSandboxOptions {
  /** keys of mounted layers, topmost first; @default the mounted base */
  readonly layers?: readonly string[];
  readonly uppersMib?: number;
}

/** Mounts the tests' base as a layer; returns its key. */
export async function mountBase(machine: TestKernel): Promise<string> {
  const key = baseKey(machine);
  await machine.kernel.mountLayer(key, machine.image("000-base-test", usableFormat), usableFormat);
  return key;
}

export async function unmountBase(machine: TestKernel): Promise<void> {
  await machine.kernel.unmountLayer(baseKey(machine));
}

/** A cell with a root, made of the kernel's parts alone; gone at the end of the block. */
export class TestSandbox implements AsyncDisposable {
  readonly index: number;
  readonly upper: string;
  readonly #machine: TestKernel;
  #process: CellProcess | null = null;

  constructor(machine: TestKernel, index: number) {
    this.#machine = machine;
    this.index = index;
    this.upper = join(machine.dataDir, `upper-${index}`);
  }

  /** Makes cell and root. */
  static async make(machine: TestKernel, index: number, options: TestSandboxOptions = {}): Promise<TestSandbox> {
    const sandbox = new TestSandbox(machine, index);
    try {
      await sandbox.makeCell(options.uppersMib ?? 16);
      await sandbox.giveRoot(options.layers ?? [baseKey(machine)]);
    } catch (error) {
      await sandbox[Symbol.asyncDispose]();
      throw error;
    }
    return sandbox;
  }

  get pid(): number {
    if (this.#process === null) throw new Error("there is no cell");
    return this.#process.pid;
  }

  /** A cell that waits for its root, and its upper. */
  async makeCell(uppersMib = 16): Promise<void> {
    const { index, upper } = this;
    this.#process = await this.#machine.kernel.makeCell(index, { nestedUserns: false });
    mkdirSync(upper);
    await this.#machine.kernel.mountUpper({ path: upper, image: null, sizeBytes: uppersMib * mebibyte, index });
  }

  giveRoot(layers: readonly string[], fresh = true): Promise<void> {
    const { index, upper } = this;
    return this.#machine.kernel.giveRoot(index, { fresh, named: fresh, hostname: `cell-${index}`, upper, layers });
  }

  run(...of: Tail<Parameters<TestKernel["run"]>>): ReturnType<TestKernel["run"]> {
    return this.#machine.run(this.index, ...of);
  }

  print(script: string): Promise<string> {
    return this.#machine.print(this.index, script);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#machine.kernel.killCell(this.index);
    await this.#machine.kernel.unmountUpper(this.upper);
    rmSync(this.upper, { recursive: true, force: true });
  }
}

type Tail<T extends readonly unknown[]> = T extends readonly [unknown, ...infer Rest] ? Rest : never;

function baseKey(machine: TestKernel): string {
  return `base-${machine.mark}.${usableFormat}`;
}

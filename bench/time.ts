import { copyFileSync } from "node:fs";
import { join } from "node:path";
import type { Sandbox } from "@squash/sdk";
import { trustByHand } from "../test/support/modules.js";
import { layers, timesOfForks, type Bench } from "./squash.js";
import { summarize, times, type Summary } from "./stats.js";

const added = "100-added";

/** Files of sandboxes over time. */
export class TimeBench {
  readonly #bench: Bench;

  constructor(bench: Bench) {
    this.#bench = bench;
    const modules = join(bench.squashd.dataDir, "modules");
    for (const format of ["erofs", "squashfs"])
      copyFileSync(join(modules, `${layers[0]}.${format}`), join(modules, `${added}.${format}`));
    trustByHand(modules, added);
  }

  /** A fork of the present files, until it can run commands, of a sandbox that has written next to nothing. */
  async forkSmall(count: number): Promise<Summary> {
    await using sandbox = await this.#create();
    await sandbox.exec("echo small >/small");
    return await times(
      count,
      () => sandbox.fork(),
      (forks) => Promise.all(forks.map((fork) => fork.destroy())),
    );
  }

  /** Milliseconds until all of `count` forks that are asked for at once have run a command. */
  async forkMany(count: number, rounds: number): Promise<Summary> {
    await using sandbox = await this.#create();
    await sandbox.exec("echo small >/small");
    return await timesOfForks(sandbox, count, rounds);
  }

  /** A snapshot of 2,000 files of 10 KB each: until it is answered, and for how long nothing ran. */
  async snapshot(rounds: number): Promise<{ whole: Summary; pause: Summary }> {
    await using sandbox = await this.#create();
    await fill(sandbox);
    const pauses: number[] = [];
    const whole = await times(
      rounds,
      () => sandbox.snapshot(),
      async ({ snapshot, paused_ms }) => {
        pauses.push(paused_ms);
        await sandbox.deleteSnapshot(snapshot);
      },
    );
    return { whole, pause: summarize(pauses) };
  }

  /** Going back to a snapshot of that size. */
  async restore(rounds: number): Promise<Summary> {
    await using sandbox = await this.#create();
    await fill(sandbox);
    await sandbox.snapshot({ label: "full" });
    return await times(rounds, () => sandbox.restore("full"));
  }

  /** Adding a module to a sandbox in which nothing runs. */
  async activate(rounds: number): Promise<Summary> {
    await using sandbox = await this.#create();
    return await times(
      rounds,
      () => sandbox.activate(added),
      () => sandbox.deactivate(added),
    );
  }

  #create(): Promise<Sandbox> {
    return this.#bench.squashd.client.create({ layers, memory_mb: 256 });
  }
}

async function fill(sandbox: Sandbox): Promise<void> {
  const script = `i=0; block=$(printf '%10000s' x); while [ $i -lt 2000 ]; do i=$((i + 1)); echo "$block" >/files-$i; done`;
  const { exit_code, stderr } = await sandbox.exec(script);
  if (exit_code !== 0) throw new Error(`cannot write the files: ${stderr}`);
}

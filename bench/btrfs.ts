import type { Sandbox } from "@squash/sdk";
import { layers, timesOfForks, type Bench } from "./squash.js";
import { summarize, times, type Summary } from "./stats.js";

/** Forks, snapshots and restores of sandboxes whose uppers share their content. */
export class BtrfsBench {
  readonly #bench: Bench;

  constructor(bench: Bench) {
    this.#bench = bench;
  }

  /** With so much written: a fork of the present files until it can run commands, a snapshot's whole time and its pause, a restore. */
  async written(
    mebibytes: number,
    rounds: number,
  ): Promise<{ fork: Summary; snapshot: Summary; pause: Summary; restore: Summary }> {
    await using sandbox = await this.#filled(mebibytes);
    const fork = await times(
      rounds,
      () => sandbox.fork(),
      (forks) => Promise.all(forks.map((one) => one.destroy())),
    );
    const pauses: number[] = [];
    const snapshot = await times(
      rounds,
      () => sandbox.snapshot(),
      async ({ snapshot: label, paused_ms }) => {
        pauses.push(paused_ms);
        await sandbox.deleteSnapshot(label);
        await write(sandbox, "/more", 1); // never quite clean
      },
    );
    await sandbox.snapshot({ label: "kept" });
    const restore = await times(rounds, () => sandbox.restore("kept"));
    return { fork, snapshot, pause: summarize(pauses), restore };
  }

  /** Milliseconds until all of `count` forks that are asked for at once have run a command. */
  async forkMany(count: number, rounds: number): Promise<Summary> {
    await using sandbox = await this.#filled(1);
    return await timesOfForks(sandbox, count, rounds);
  }

  /** The pause where 200 MiB were written a moment ago. */
  async dirtyPause(rounds: number): Promise<Summary> {
    await using sandbox = await this.#filled(1);
    const pauses: number[] = [];
    for (let round = 0; round < rounds; round++) {
      await write(sandbox, "/dirty", 200);
      const { snapshot, paused_ms } = await sandbox.snapshot();
      pauses.push(paused_ms);
      await sandbox.deleteSnapshot(snapshot);
    }
    return summarize(pauses);
  }

  async #filled(mebibytes: number): Promise<Sandbox> {
    const sandbox = await this.#bench.squashd.client.create({ layers, memory_mb: 2048 });
    await write(sandbox, "/written", mebibytes);
    return sandbox;
  }
}

async function write(sandbox: Sandbox, path: string, mebibytes: number): Promise<void> {
  const { exit_code, stderr } = await sandbox.exec(
    `dd if=/dev/urandom of=${path} bs=1M count=${mebibytes} 2>/dev/null`,
  );
  if (exit_code !== 0) throw new Error(`cannot write ${mebibytes} MiB: ${stderr}`);
}

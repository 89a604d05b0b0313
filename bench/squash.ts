import { readFileSync } from "node:fs";
import { createServer, type AddressInfo } from "node:net";
import { Client, type Sandbox } from "@squash/sdk";
import { TestInternet } from "../test/support/internet.js";
import { TestSquashd } from "../test/support/squashd.js";
import { rate, summarize, times, type Summary } from "./stats.js";

export const layers = ["000-base-bench"];

/** A squashd that is asked over TCP with keep-alive, as its users do. */
export async function startSquashd(prepare: (modules: string) => void, env: Record<string, string>): Promise<Bench> {
  const port = await freePort();
  const squashd = new TestSquashd({
    env: { SQUASH_LISTEN: `127.0.0.1:${port}`, ...env },
    url: `http://127.0.0.1:${port}`,
    here: true,
  });
  prepare(`${squashd.dataDir}/modules`);
  await squashd.start();
  await settled(squashd.client);
  return new Bench(squashd);
}

/** The same with the tests' internet beside it, which is to be disposed of first. */
export async function startOnline(
  prepare: (modules: string) => void,
  env: Record<string, string>,
): Promise<{ bench: Bench; internet: TestInternet }> {
  const port = await freePort();
  const squashd = new TestSquashd({ url: `http://127.0.0.1:${port}`, here: true });
  prepare(`${squashd.dataDir}/modules`);
  const internet = new TestInternet(squashd);
  await internet.start();
  await squashd.start({ SQUASH_LISTEN: `127.0.0.1:${port}`, ...env, ...internet.env });
  await settled(squashd.client);
  return { bench: new Bench(squashd), internet };
}

export class Bench {
  readonly squashd: TestSquashd;
  readonly #client: Client;
  #next = 0;

  constructor(squashd: TestSquashd) {
    this.squashd = squashd;
    this.#client = squashd.client;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.squashd[Symbol.asyncDispose]();
  }

  /** Create and first command, until its result is there; destroyed outside the time. */
  timeToInteractive(count: number): Promise<Summary> {
    return times(
      count,
      async () => {
        const sandbox = await this.#create();
        await check(sandbox, ["/bin/true"]);
        return sandbox;
      },
      async (sandbox) => {
        await sandbox.destroy();
        await settled(this.#client); // the pool is what a client that does not ask without pause finds
      },
    );
  }

  create(count: number): Promise<Summary> {
    return times(
      count,
      () => this.#create(),
      async (sandbox) => {
        await sandbox.destroy();
        await settled(this.#client);
      },
    );
  }

  async exec(count: number, command: string | string[]): Promise<Summary> {
    await using sandbox = await this.#create();
    await check(sandbox, command);
    return await times(count, () => check(sandbox, command));
  }

  async destroy(count: number): Promise<Summary> {
    const sandboxes: Sandbox[] = [];
    for (let made = 0; made < count; made++) {
      const sandbox = await this.#create();
      await check(sandbox, ["/bin/true"]);
      sandboxes.push(sandbox);
    }
    return await times(count, (round) => sandboxes[round]?.destroy() ?? Promise.resolve());
  }

  /** Milliseconds until all of `count` sandboxes that are asked for at once have run a command. */
  async burst(count: number, rounds: number): Promise<Summary> {
    const durations: number[] = [];
    for (let round = 0; round < rounds; round++) {
      const start = performance.now();
      const sandboxes = await Promise.all(
        Array.from({ length: count }, async () => {
          const sandbox = await this.#create();
          await check(sandbox, ["/bin/true"]);
          return sandbox;
        }),
      );
      durations.push(performance.now() - start);
      for (const sandbox of sandboxes) await sandbox.destroy();
      await settled(this.#client);
    }
    return summarize(durations);
  }

  /** Sandboxes per second through create, exec and destroy. */
  lifecycles(clients: number, seconds: number): Promise<number> {
    return rate(clients, seconds, async () => {
      const sandbox = await this.#create();
      await check(sandbox, ["/bin/true"]);
      await sandbox.destroy();
    });
  }

  /** Commands per second over `count` sandboxes. */
  async execs(count: number, clients: number, seconds: number): Promise<number> {
    const sandboxes = await this.#createMany(count);
    try {
      return await rate(clients, seconds, (client, round) => {
        const sandbox = sandboxes[(client + round * clients) % count];
        return sandbox === undefined ? Promise.resolve() : check(sandbox, ["/bin/true"]);
      });
    } finally {
      await Promise.all(sandboxes.map((sandbox) => sandbox.destroy()));
    }
  }

  /** Create at 10 and at `count` living sandboxes, and MiB of memory for each of these, kernel and processes together. */
  async crowd(count: number, rounds: number): Promise<{ few: Summary; many: Summary; mibEach: number }> {
    const some = await this.#createMany(10);
    const few = await this.create(rounds);
    const before = availableMib();
    const others = await this.#createMany(count - 10);
    await new Promise((done) => setTimeout(done, 2_000)); // freed memory of the creates comes back a moment later
    const mibEach = (before - availableMib()) / (count - 10);
    const many = await this.create(rounds);
    for (const sandbox of [...some, ...others]) await sandbox.destroy();
    return { few, many, mibEach };
  }

  #create(): Promise<Sandbox> {
    return this.#client.create({ id: `b${this.#next++}`, layers, memory_mb: 256 });
  }

  async #createMany(count: number): Promise<Sandbox[]> {
    const sandboxes: Sandbox[] = [];
    while (sandboxes.length < count) {
      const group = Array.from({ length: Math.min(20, count - sandboxes.length) }, () => this.#create());
      sandboxes.push(...(await Promise.all(group)));
    }
    return sandboxes;
  }
}

/** Milliseconds until all of `count` forks of a sandbox that are asked for at once have run a command. */
export async function timesOfForks(sandbox: Sandbox, count: number, rounds: number): Promise<Summary> {
  return await times(
    rounds,
    async () => {
      const forks = await sandbox.fork({ count });
      await Promise.all(forks.map((fork) => fork.exec(["/bin/true"])));
      return forks;
    },
    (forks) => Promise.all(forks.map((fork) => fork.destroy())),
  );
}

async function check(sandbox: Sandbox, command: string | string[]): Promise<void> {
  const { exit_code, stderr } = await sandbox.exec(command);
  if (exit_code !== 0) throw new Error(`${JSON.stringify(command)} ended with ${exit_code}: ${stderr}`);
}

/** Waits until the pool is full. */
async function settled(client: Client): Promise<void> {
  for (;;) {
    const { pool } = await client.health();
    if (pool.ready >= pool.size) return;
    await new Promise((done) => setTimeout(done, 2));
  }
}

function availableMib(): number {
  return Number(/^MemAvailable:\s+(\d+)/m.exec(readFileSync("/proc/meminfo", "utf8"))?.[1]) / 1024;
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.on("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address() as AddressInfo;
      server.close(() => resolve(port));
    });
  });
}

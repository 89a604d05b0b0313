import { afterAll, beforeAll, expect } from "vitest";
import type { CreateOptions, Sandbox } from "@squash/sdk";
import { Insider } from "./insider.js";
import { places, TestInternet } from "./internet.js";
import { hostState, settledState, type HostState } from "./leaks.js";
import { netnsPath } from "./reach.js";
import { TestSquashd } from "./squashd.js";

const calmName = "calm.other.net";
let counter = 0;

/** A sandbox with somebody in its network. */
export interface Box extends AsyncDisposable {
  readonly sandbox: Sandbox;
  readonly insider: Insider;
}

/** A squashd in an internet, for a file of tests. */
export interface EgressTarget {
  readonly squashd: TestSquashd;
  readonly internet: TestInternet;
  /** Makes a sandbox that is gone at the end of the block. */
  box(options?: CreateOptions): Promise<Box>;
  /** Somebody in squashd's own network. */
  host(): Promise<Insider>;
  /** Runs it; returns all that arrived at servers meanwhile, apart from what the calm client caused. */
  arrivalsOf(work: () => Promise<unknown>): Promise<string[]>;
}

/**
 * Prepares it before the file's tests. All the while a calm client in a sandbox of its own uses what it is allowed to; after the tests it must
 * not have noticed anything, and everything must be gone from the host.
 */
export function useInternet(): EgressTarget {
  const squashd = new TestSquashd();
  const internet = new TestInternet(squashd);
  const marks = [squashd.mark];
  let before: HostState;
  let calm: Box | null = null;
  let calmSince = 0;

  const box = async (options: CreateOptions = {}): Promise<Box> => {
    const id = `egress-${process.pid}-${++counter}`;
    const sandbox = await squashd.client.create({ id, ...options });
    const insider = await Insider.start(netnsPath(id), internet.certificate);
    return {
      sandbox,
      insider,
      async [Symbol.asyncDispose]() {
        await insider[Symbol.asyncDispose]();
        await sandbox[Symbol.asyncDispose]();
      },
    };
  };

  beforeAll(async () => {
    before = hostState(marks);
    await internet.start();
    await squashd.start(internet.env);
    calm = await box({ allow_net: [calmName] });
    await calm.insider.startLoop(calmName);
    calmSince = performance.now();
  });

  afterAll(async () => {
    try {
      await expectCalm(calm, calmSince);
      expect(await squashd.client.health()).toMatchObject({ status: "ok" });
      await calm?.[Symbol.asyncDispose]();
      expect(await squashd.client.list()).toEqual([]);
      await squashd.end();
      expect(squashd.netns.links()).toEqual([]);
      expect(squashd.netns.run("nft", "list", "tables")).toBe("");
    } finally {
      await calm?.insider[Symbol.asyncDispose]();
      await internet[Symbol.asyncDispose]();
      await squashd[Symbol.asyncDispose]();
    }
    expect(await settledState(before, marks)).toEqual(before);
  });

  return {
    squashd,
    internet,
    box,
    host: () => Insider.start(squashd.netns.path, internet.certificate),
    async arrivalsOf(work) {
      const from = internet.arrivals.length;
      await work();
      await internet.settled();
      return internet.seen("", from).filter((line) => !line.includes(places.calmWeb) && !line.includes(calmName));
    },
  };
}

/** No request of it failed, and there were some in every second. */
async function expectCalm(calm: Box | null, since: number): Promise<void> {
  const seconds = (performance.now() - since) / 1000;
  const { rounds, failures } = (await calm?.insider.endLoop()) ?? { rounds: 0, failures: ["it was not there"] };
  expect(failures).toEqual([]);
  expect(rounds).toBeGreaterThan(seconds);
}

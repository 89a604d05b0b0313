import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { hostState, settledState, type HostState } from "../../support/leaks.js";
import { lacks } from "../../support/needs.js";
import { patience } from "../../support/patience.js";
import { randomNumbers } from "../../support/random-numbers.js";
import { ChaosActor, type ChaosWorld } from "../../support/s3/chaos-actor.js";
import { CellWatch, ManifestWatch, manifestWrites } from "../../support/s3/chaos-cells.js";
import { forks, violations, type ChaosEvent } from "../../support/s3/chaos-history.js";
import { ChaosMachine, pauseMs, Tally } from "../../support/s3/chaos-machine.js";
import { FaultProxy } from "../../support/s3/fault-proxy.js";
import { S3Server } from "../../support/s3/s3-server.js";
import { squashdWithBucket } from "../../support/s3/squashd-with-bucket.js";

const leaseS = 6;
/** operations with what came of them, and what was done to machines */
const wantedEvents = Number(process.env["TEST_EVENTS"] ?? 1_000);
const mostSeconds = 240 * patience;
const ids = Array.from({ length: 10 }, (_, n) => `chaos-${n}`);
const forkSteps = 8;
const mostForks = 2;

/** Lines of a log in which squashd says that it was not ready for something. */
function bugs(log: string): string[] {
  return log.split("\n").filter((line) => line.includes('"msg":"bug"'));
}

describe.skipIf(lacks("root"))("sandboxes that three machines share, while everything fails", () => {
  const made: AsyncDisposable[] = [];
  const use = <T extends AsyncDisposable>(one: T): T => {
    made.push(one);
    return one;
  };
  let server: S3Server;
  let machines: ChaosMachine[];
  let before: HostState;
  let marks: string[];
  const happened = new Tally();
  const seed = Number(process.env["TEST_SEED"] ?? Date.now() % 2 ** 31);
  const random = randomNumbers(seed);

  beforeAll(async () => {
    console.log(`seed ${seed} (set TEST_SEED to repeat)`);
    server = use(await S3Server.start());
    machines = [];
    marks = [];
    for (let n = 0; n < 3; n++) {
      const proxy = use(await FaultProxy.start(server));
      const env = {
        SQUASH_EPHEMERAL: "1",
        SQUASH_LEASE_S: String(leaseS),
        SQUASH_CHECKPOINT_INTERVAL: "4",
        SQUASH_POOL_SIZE: "1",
        SQUASH_UPPER_LIMIT_MB: "64",
        SQUASH_S3_ENDPOINT: proxy.endpoint,
      };
      const squashd = squashdWithBucket(server, { env });
      machines.push(new ChaosMachine(squashd, { proxy, leaseMs: leaseS * 1_000, random, tally: happened }));
      marks.push(squashd.mark);
    }
    before = hostState(marks);
    await Promise.all(machines.map(({ squashd }) => use(squashd).start()));
  });

  afterAll(async () => {
    if (process.env["TEST_VERBOSE"]) for (const { squashd } of machines) console.log(squashd.output.slice(-6000));
    for (const one of made.toReversed()) await one[Symbol.asyncDispose]();
    expect(await settledState(before, marks)).toEqual(before);
  });

  it(
    "come back with all that was saved, run on one machine at a time, and are changed by whoever has them",
    { timeout: (mostSeconds + 180 * patience) * 1_000 },
    async () => {
      const events: ChaosEvent[] = [];
      const asked = new Tally();
      const actors = new Map<string, ChaosActor>();
      const forked: string[] = [];
      let seq = 0;
      const end = Date.now() + mostSeconds * 1_000;
      const count = (): number => asked.total + happened.total;
      const isOn = (): boolean => count() < wantedEvents && Date.now() < end;
      const world: ChaosWorld = {
        machines,
        events,
        tally: asked,
        random,
        isOn,
        nextSeq: () => ++seq,
        forked: (id) => forked.push(id),
      };
      for (const id of ids) actors.set(id, new ChaosActor(id, world));
      using cells = new CellWatch(marks);
      await using manifests = new ManifestWatch(server, () => actors.keys());
      const act = async (actor: ChaosActor): Promise<void> => {
        while (isOn()) await actor.step();
      };
      const useForks = async (): Promise<void> => {
        while (isOn()) {
          const id = forked.shift();
          if (id === undefined) await pauseMs(100);
          else {
            const actor = new ChaosActor(id, world);
            actors.set(id, actor);
            for (let n = 0; n < forkSteps && isOn(); n++) await actor.step();
          }
        }
      };
      const upset = async (machine: ChaosMachine): Promise<void> => {
        while (isOn()) {
          await pauseMs(1_000 + random(7_000));
          await machine.disturb();
        }
      };
      await Promise.all([
        ...[...actors.values()].map(act),
        ...Array.from({ length: mostForks }, useForks),
        ...machines.map(upset),
      ]);
      const reached = count();
      const history = `${reached} events: ${asked.toString()}; ${happened.toString()}`;
      for (const machine of machines) await machine.settled();
      const ended = await Promise.allSettled([...actors.values()].map((actor) => actor.end()));
      const holders = manifests.readings.filter(({ holder }) => holder !== null);
      const takeovers = new Set(holders.map(({ id, epoch }) => `${id} ${epoch}`)).size;
      console.log(`${takeovers} epochs; ${history}; looked ${cells.looks} times`);
      expect(reached).toBeGreaterThanOrEqual(wantedEvents);
      expect({
        wrong: violations(events),
        twice: cells.found,
        forks: forks(await manifestWrites(server), manifests.readings),
        bugs: machines.flatMap(({ squashd }) => bugs(squashd.output)),
        lost: ended.flatMap((one) => (one.status === "rejected" ? [String(one.reason)] : [])),
      }).toEqual({ wrong: [], twice: [], forks: [], bugs: [], lost: [] });
    },
  );
});

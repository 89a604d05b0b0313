import { statSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import type { Sandbox } from "@squash/sdk";
import { places } from "../../support/internet.js";
import { lacks } from "../../support/needs.js";
import { useOnline } from "../../support/online.js";
import { ipv4, protocols, tcp, udp } from "../../support/packets.js";
import { startSending } from "../../support/raw-client.js";
import { netnsOf, Reach, type Place } from "../../support/reach.js";

const { squashd } = useOnline();
const { web, otherWeb, lan } = places;
const direct: Place = [web, 7_000];
const connectionLimit = 2_048;

let attacker: Sandbox;
let reach: Reach;
let neighbourReach: Reach;

beforeAll(async () => {
  attacker = await squashd.client.create({ id: "attacker" });
  const neighbour = await squashd.client.create({ id: "neighbour" });
  reach = await Reach.from(netnsOf(attacker));
  neighbourReach = await Reach.from(netnsOf(neighbour));
});
afterEach(async () => {
  await attacker.setNetwork({ allow_net: null });
});
afterAll(async () => {
  await reach[Symbol.asyncDispose]();
  await neighbourReach[Symbol.asyncDispose]();
});

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Takes a rule out of a chain, whose handle the pattern finds. */
function removeRule(chain: string, pattern: RegExp): void {
  const handle = pattern.exec(squashd.netns.run("nft", "-a", "list", "chain", "inet", "squash", chain))?.[1];
  squashd.netns.run("nft", "delete", "rule", "inet", "squash", chain, "handle", handle ?? "none");
}

/** Times of answers of squashd in the meantime, in ms, the longest first. */
async function latencies(meanwhile: Promise<unknown>): Promise<number[]> {
  const times: number[] = [];
  const running = { yes: true };
  void meanwhile.finally(() => (running.yes = false));
  while (running.yes) {
    const start = performance.now();
    await squashd.client.health();
    times.push(performance.now() - start);
    await pause(20);
  }
  return times.toSorted((a, b) => b - a);
}

/** Connections that come about in a second and a half, as fast as they can be made. */
async function connectionsMade(): Promise<number> {
  const storm = await reach.storm([direct], { atOnce: 8, timeoutMs: 300 });
  await pause(1_500);
  return (await reach.calm(storm)).opened[direct.join(":")]?.times ?? 0;
}

describe.skipIf(lacks("root"))("new connections", () => {
  it("are limited to so many a second", async () => {
    expect(await connectionsMade()).toBeGreaterThan(60);
    await attacker.setNetwork({ allow_net: null, net_limits: { connections_per_s: 10 } });
    const made = await connectionsMade();
    // those of the first moment, then ten a second
    expect(made).toBeGreaterThanOrEqual(10);
    expect(made).toBeLessThanOrEqual(10 + 10 * 2.5);
    expect(await neighbourReach.opens(direct)).toBe(true);
    await attacker.setNetwork({ allow_net: null });
    expect(await connectionsMade()).toBeGreaterThan(60);
  });
});

describe.skipIf(lacks("root"))("bandwidth", () => {
  it.each(["down_kbit", "up_kbit"] as const)("is limited by %s", async (field) => {
    const bytesPerS = 1_000_000;
    expect(await reach.pump(direct, 500)).toBeGreaterThan(5 * bytesPerS);
    await attacker.setNetwork({ allow_net: null, net_limits: { [field]: (bytesPerS * 8) / 1_000 } });
    const limited = await reach.pump(direct, 1_500);
    expect(limited).toBeGreaterThan(bytesPerS / 3);
    expect(limited).toBeLessThan(bytesPerS * 1.3);
    expect(await neighbourReach.pump(direct, 300)).toBeGreaterThan(3 * bytesPerS);
  });
});

describe.skipIf(lacks("root"))("a flood", () => {
  const packets = (to: string, from: string): Buffer[] => {
    const ends = { from, to };
    return [
      ipv4({ ...ends, protocol: protocols.udp, payload: udp(5_000, 7_000, "flood") }),
      ipv4({ ...ends, protocol: protocols.tcp, payload: tcp(ends, [5_001, 7_000]) }),
      ipv4({ ...ends, protocol: protocols.gre, payload: Buffer.alloc(8) }),
    ];
  };
  const auditBytes = (): number =>
    statSync(join(squashd.dataDir, "audit/egress.jsonl"), { throwIfNoEntry: false })?.size ?? 0;
  const bytesOfALine = 300;
  /** from native rules: at first, and then in a second */
  const burst = 40;
  const linesPerS = 10;

  async function floodedBytes(times: number): Promise<{ bytes: number; ms: number; slowest: number; typical: number }> {
    const { address } = await attacker.info();
    const [before, start] = [auditBytes(), performance.now()];
    const flood = startSending(netnsOf(attacker), packets(lan, address ?? ""), times);
    const times_ = await latencies(flood);
    expect(await flood).toMatch(/^sent \d{5,}$/);
    await pause(600); // what waits is written
    const typical = times_[Math.floor(times_.length / 2)] ?? Number.POSITIVE_INFINITY;
    return { bytes: auditBytes() - before, ms: performance.now() - start, slowest: times_[0] ?? 0, typical };
  }

  it("of refused packets leaves squashd answering, the neighbour undisturbed, and the log small", async () => {
    const refusedBefore = (await attacker.network()).connections_refused;
    const { bytes, ms, slowest, typical } = await floodedBytes(100_000);
    expect(typical).toBeLessThan(200);
    expect(slowest).toBeLessThan(2_000);
    expect(bytes).toBeGreaterThan(0);
    expect(bytes).toBeLessThan((burst + linesPerS * (ms / 1_000 + 2)) * bytesOfALine);
    // all of them were decided on and counted
    expect((await attacker.network()).connections_refused - refusedBefore).toBeGreaterThan(250_000);
    expect(await neighbourReach.opens(direct)).toBe(true);
  });

  it("is the log's only because of the limit in the rules", async () => {
    const rule = ["inet", "squash", "refuse", "log", "prefix", "refused", "group", "21329"];
    squashd.netns.run("nft", "insert", "rule", ...rule);
    const { bytes } = await floodedBytes(5_000);
    removeRule("refuse", /^\s*log prefix "refused" group 21329 # handle (\d+)/m);
    expect(bytes).toBeGreaterThan(2_000 * 100);
  });
});

/** The last of the file: it takes a rule away. */
describe.skipIf(lacks("root"))("connections at once", () => {
  const wanted = connectionLimit + 150;
  let greedy: Sandbox;
  let greedyReach: Reach;
  beforeAll(async () => {
    greedy = await squashd.client.create({ id: "greedy" });
    greedyReach = await Reach.from(netnsOf(greedy));
  });
  afterAll(async () => {
    await greedyReach[Symbol.asyncDispose]();
  });

  it("are limited, which harms only whoever wants more", async () => {
    const opened = await greedyReach.many(direct, wanted);
    expect(opened).toBeLessThanOrEqual(connectionLimit);
    expect(opened).toBeGreaterThan(connectionLimit - 50);
    expect(await greedyReach.opens([otherWeb, 7_000])).toBe(false);
    expect(await neighbourReach.opens(direct)).toBe(true);
    expect((await greedy.exec("echo yes")).stdout).toBe("yes\n");
    const { connections_open: open } = await greedy.network();
    expect(open).toBeLessThanOrEqual(connectionLimit + 1);
  });

  it("are not without the rule", async () => {
    removeRule("decide", /@tracked .*# handle (\d+)/);
    expect(await greedyReach.many(direct, 200)).toBe(200);
    await greedyReach.release();
  });
});

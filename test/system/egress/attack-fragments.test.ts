import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { places } from "../../support/internet.js";
import { lacks } from "../../support/needs.js";
import { useOnline } from "../../support/online.js";
import { icmp, ipv4, protocols, udp } from "../../support/packets.js";
import { enter, getsOut, mark, pings, quietMs, type Member } from "../../support/raw-attacker.js";
import { sendPackets, Tap } from "../../support/raw-client.js";

const { squashd, internet, outside } = useOnline();
const { web, lan } = places;

let attacker: Member;
let nextId = 5_000;

beforeAll(async () => {
  attacker = await enter(squashd, "attacker", [`${web}:7000/udp`]);
});
afterAll(async () => {
  await attacker.reach[Symbol.asyncDispose]();
});

const out = (from: string, protocol: number, payload: Buffer): Buffer => ipv4({ from, to: web, protocol, payload });

describe.skipIf(lacks("root"))("with a policy for one port,", () => {
  /** Fragments of one packet, as [where, bytes, whether more follow]. */
  async function fragments(
    parts: (text: string) => readonly (readonly [number, Buffer, boolean])[],
  ): Promise<string[]> {
    const [from, text, id] = [internet.arrivals.length, mark(), nextId++];
    const common = { from: attacker.address, to: web, protocol: protocols.udp, id };
    const packets = parts(text).map(([offset, payload, more]) => ipv4({ ...common, payload, offset, more }));
    expect(sendPackets(attacker.netns, packets)).toBe(`sent ${packets.length}`);
    await new Promise((resolve) => setTimeout(resolve, quietMs));
    return internet.seen("udp", from).map((each) => each.split(" ")[1] ?? "");
  }

  const good = (text: string): Buffer => udp(5_000, 7_000, text.padEnd(40, "."));
  const bad = (text: string): Buffer => udp(5_000, 5_432, text.padEnd(40, "."));

  it("fragments to it pass, in any order", async () => {
    expect(
      await fragments((text) => [
        [24, good(text).subarray(24), false],
        [0, good(text).subarray(0, 24), true],
      ]),
    ).toEqual([`${web}:7000`]);
  });

  it("fragments to another do not, however they are cut", async () => {
    for (const at of [8, 16, 24]) {
      const [first, rest] = [0, at];
      const cut = (text: string): (readonly [number, Buffer, boolean])[] => [
        [first, bad(text).subarray(0, at), true],
        [rest, bad(text).subarray(at), false],
      ];
      expect(await fragments(cut)).toEqual([]);
      expect(await fragments((text) => cut(text).toReversed())).toEqual([]);
    }
  });

  it("a first fragment that is replaced by one to another port leads nowhere", async () => {
    expect(
      await fragments((text) => [
        [0, good(text).subarray(0, 16), true],
        [0, bad(text).subarray(0, 16), true],
        [16, good(text).subarray(16), false],
      ]),
    ).not.toContain(`${web}:5432`);
    expect(
      await fragments((text) => [
        [8, good(text).subarray(8), false],
        [0, bad(text).subarray(0, 16), true],
        [0, good(text).subarray(0, 8), true],
      ]),
    ).not.toContain(`${web}:5432`);
  });

  it("a source route through an allowed address leads nowhere else", async () => {
    const text = mark();
    await using tap = await Tap.open(outside, "up0");
    const options = Buffer.concat([Buffer.from([131, 7, 4]), Buffer.from(lan.split(".").map(Number)), Buffer.alloc(1)]);
    const payload = udp(5_000, 7_000, text);
    const packet = ipv4({ from: attacker.address, to: web, protocol: protocols.udp, payload, options });
    const from = internet.arrivals.length;
    sendPackets(attacker.netns, [packet]);
    await tap.hears(text, quietMs);
    expect(internet.seen("udp", from).filter((each) => each.includes(lan))).toEqual([]);
  });

  it("nothing goes by echo requests, as it does with an open policy", async () => {
    const echo = (text: string): Buffer[] => [out(attacker.address, protocols.icmp, icmp(8, text))];
    expect(await pings(attacker, web)).toBe(false);
    expect(await getsOut(attacker, outside, echo)).toBe(false);
    await attacker.sandbox.setNetwork({ allow_net: null });
    expect(await pings(attacker, web)).toBe(true);
    expect(await getsOut(attacker, outside, echo)).toBe(true);
    await attacker.sandbox.setNetwork({ allow_net: [`${web}:7000/udp`] });
    // what was tracked is cut as well
    expect(await getsOut(attacker, outside, echo)).toBe(false);
  });

  it("nor by an ICMP error about a connection that there is", async () => {
    expect(await attacker.reach.opens([web, 7_000], "udp")).toBe(true);
    expect(
      await getsOut(attacker, outside, (text) => {
        const about = ipv4({ from: web, to: attacker.address, protocol: protocols.udp, payload: udp(7_000, 9, text) });
        return [out(attacker.address, protocols.icmp, icmp(3, about.toString("latin1")))];
      }),
    ).toBe(false);
  });
});

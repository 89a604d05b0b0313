import { expect } from "vitest";
import type { TestNetns } from "./netns.js";
import { frame } from "./packets.js";
import { echoBody, icmp6 } from "./packets6.js";
import { enter, mark, type Member } from "./raw-attacker.js";
import { sendFrames, Tap } from "./raw-client.js";
import type { TestSquashd } from "./squashd.js";

/** A hardware address that is nobody's. */
export const foreignMac = "02:00:00:00:99:99";
const allNodesMac = "33:33:00:00:00:01";
const ipv6Type = 0x86dd;
/**
 * How long to listen for what must not come, after which it has come wherever nothing is in its way; and for what must come, which may take
 * its time on a busy machine.
 */
const listening = { quietMs: 150, awaitedMs: 3_000 } as const;
let listenMs: number = listening.quietMs;

/** From now on attacks are to be a success, or to fail. */
export function expectSuccess(yes: boolean): void {
  listenMs = yes ? listening.awaitedMs : listening.quietMs;
}

/** Whether something is so before the time to listen is over. */
export async function soon(look: () => boolean): Promise<boolean> {
  const deadline = Date.now() + listenMs;
  for (;;) {
    if (look()) return true;
    if (Date.now() > deadline) return false;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** A sandbox that has IPv6. */
export interface Member6 extends Member {
  readonly address6: string;
  /** hardware address of the host's end of its link */
  readonly router: string;
}

/** Where the internet of the tests is by IPv6. */
export const places6 = { host: "2a0a:10::2", router: "2a0a:10::1" } as const;

export async function enter6(squashd: TestSquashd, id: string): Promise<Member6> {
  const member = await enter(squashd, id);
  const router = / lladdr (\S+)/.exec(member.netns.run("ip", "-6", "neigh", "show", "dev", "eth0"))?.[1] ?? "";
  return { ...member, address6: (await member.sandbox.info()).address6 ?? "", router };
}

/** Sends packets of IPv6 over the link, to whom all hear or to the host alone. */
export function send6(member: Member6, packets: readonly Buffer[], toAll = false): void {
  const to = toAll ? allNodesMac : member.router;
  const frames = packets.map((packet) => frame(to, foreignMac, ipv6Type, packet));
  expect(sendFrames(member.netns, "eth0", frames)).toBe(`sent ${packets.length}`);
}

/** Whether packets get to an interface. */
export async function arrives6(
  member: Member6,
  [netns, interfaceName]: readonly [TestNetns, string],
  make: (text: string) => readonly Buffer[],
): Promise<boolean> {
  const text = mark();
  await using tap = await Tap.open(netns, interfaceName);
  send6(member, make(text));
  return await tap.hears(text, listenMs);
}

/** Whether an echo request is answered; its answer is known by its type and what it carries. */
export async function pings6(member: Member6, to: string, toAll = false): Promise<boolean> {
  const text = mark();
  await using tap = await Tap.open(member.netns, "eth0");
  send6(member, [icmp6({ from: member.address6, to }, 128, echoBody(text))], toAll);
  // what a refusal quotes is the request; type of the message behind the headers of Ethernet and IPv6
  return await soon(() => tap.frames.some((each) => each.includes(text) && each[54] === 129));
}

/** Gives the host and the internet addresses by IPv6; `servers` are the internet's. */
export function connect6(host: TestNetns, internet: TestNetns, servers: readonly string[]): void {
  internet.run("ip", "address", "add", `${places6.router}/64`, "dev", "up0", "nodad");
  host.run("ip", "address", "add", `${places6.host}/64`, "dev", "down0", "nodad");
  for (const address of servers) internet.run("ip", "address", "add", `${address}/128`, "dev", "lo", "nodad");
}

import { expect } from "vitest";
import type { Sandbox } from "@squash/sdk";
import type { TestNetns } from "./netns.js";
import { icmp, ipv4, protocols } from "./packets.js";
import { sendPackets, Tap } from "./raw-client.js";
import { netnsOf, Reach } from "./reach.js";
import type { TestSquashd } from "./squashd.js";

/** within this time a packet is where it goes to */
export const quietMs = 300;

let marks = 0;

/** A text that is in no other packet. */
export function mark(): string {
  return `marked-${++marks}-${process.pid}-`;
}

/** A sandbox as its network has it, with a client in its namespace. */
export interface Member {
  readonly sandbox: Sandbox;
  readonly netns: TestNetns;
  readonly address: string;
  /** name of the host's end of its link */
  readonly link: string;
  readonly reach: Reach;
}

/** Creates a sandbox; its `reach` is to be disposed of. */
export async function enter(
  { client, netns: host }: TestSquashd,
  id: string,
  allow: readonly string[] | null = null,
): Promise<Member> {
  const sandbox = await client.create({ id, allow_net: allow === null ? null : [...allow] });
  const address = (await sandbox.info()).address ?? "";
  const link = / dev (sq\d+h) /.exec(host.run("ip", "route", "show", `${address}/32`))?.[1] ?? "";
  const netns = netnsOf(sandbox);
  return { sandbox, netns, address, link, reach: await Reach.from(netns) };
}

/** Whether packets get out of the machine, to where the internet is. */
export async function getsOut(
  attacker: Member,
  outside: TestNetns,
  make: (text: string) => readonly Buffer[],
): Promise<boolean> {
  const text = mark();
  await using tap = await Tap.open(outside, "up0");
  expect(sendPackets(attacker.netns, make(text))).toMatch(/^sent /);
  return await tap.hears(text, quietMs);
}

/** Whether an echo request is answered. */
export async function pings({ netns, address }: Member, to: string): Promise<boolean> {
  const text = mark();
  await using tap = await Tap.open(netns, "eth0");
  sendPackets(netns, [ipv4({ from: address, to, protocol: protocols.icmp, payload: icmp(8, text) })]);
  return await tap.hears(icmp(0, text), quietMs);
}

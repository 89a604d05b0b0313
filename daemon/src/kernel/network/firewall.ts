import type { Firewall, FirewallElement, Flow, LinkTraffic, LoggedPacket, Subnet } from "../../core/egress/firewall.js";
import { FieldWriter } from "../frame.js";
import type { Host } from "../host.js";
import { readAddress, writeAddress } from "../wire-address.js";
import { runNft } from "./nft.js";
import { renderRuleset, tableName, type RulesetFacts } from "./ruleset.js";

/** native/src/firewall.h has the same numbers, and the same bounds on one request */
const kinds = { plain: 0, mark: 1, rate: 2 } as const;
const maxElements = 8192;
const maxFlows = 4000;

/** What the ruleset depends on beside the subnet. */
export type LoadFacts = Omit<RulesetFacts, "subnet" | "gateway" | "ipv6"> & {
  readonly ports: RulesetFacts["ports"] & { readonly http6: number; readonly tls6: number };
  /** whether the machine forwards IPv6 only because squashd made it */
  readonly isClosed6: boolean;
};

export function rulesetFacts({ cidr, gateway, ipv6 }: Subnet, facts: LoadFacts): RulesetFacts {
  const { isClosed6, ...rest } = facts;
  const { http6, tls6 } = facts.ports;
  const ports = { http: http6, tls: tls6 };
  const facts6 = ipv6 === null ? null : { subnet: ipv6.cidr, gateway: ipv6.gateway, ports, isClosed: isClosed6 };
  return { ...rest, subnet: cidr, gateway, ipv6: facts6 };
}

/** The real firewall: sq-host changes elements, nft loads the ruleset once. */
export class LinuxFirewall implements Firewall {
  readonly subnet: Subnet;
  readonly #host: Host;

  constructor(host: Host, subnet: Subnet) {
    this.#host = host;
    this.subnet = subnet;
  }

  /** Replaces the table of an earlier squashd, with empty sets: until its sandboxes are taken over, nothing passes their links. */
  async load(facts: LoadFacts): Promise<void> {
    await runNft(["-f", "-"], renderRuleset(rulesetFacts(this.subnet, facts)), "load the firewall's rules");
  }

  /** Called when somebody has removed the table. Nothing passes any link by then, until `open`. */
  onGone(listener: () => void): void {
    this.#host.onFirewallGone(listener);
  }

  /** Lets packets pass the links again, as far as the rules allow. */
  async open(): Promise<void> {
    await this.#host.request("netGate", new FieldWriter().u32(1));
  }

  /** Another program has switched forwarding on for good: what was kept closed is its business now. */
  async openInterfaces(): Promise<void> {
    await runNft(["flush", "set", "inet", tableName, "closed"], "", "open interfaces that others forward by");
  }

  /** The same for IPv6, where there is any. */
  async openInterfaces6(): Promise<void> {
    await runNft(
      ["flush", "chain", "inet", tableName, "closed6"],
      "",
      "open the machine, which others have forward IPv6",
    );
  }

  /** Removes the table and the gateway's address; idempotent. */
  async unload(): Promise<void> {
    // added first, since deleting a table that is not there is an error
    const text = `table inet ${tableName}\ndelete table inet ${tableName}\n`;
    await runNft(["-f", "-"], text, "remove the firewall's rules");
    await this.#host.request("netClose", new FieldWriter());
  }

  async update(remove: readonly FirewallElement[], add: readonly FirewallElement[]): Promise<void> {
    if (remove.length + add.length === 0) return;
    if (remove.length + add.length > maxElements)
      throw new RangeError("too many elements for one change of the firewall");
    const fields = new FieldWriter().u32(remove.length + add.length);
    for (const element of remove) writeElement(fields, element, true);
    for (const element of add) writeElement(fields, element, false);
    // an addition that was done already would be refused; what is gone already is no failure to the caller
    if (add.length > 0) await this.#host.request("netUpdate", fields);
    else await this.#host.requestTwice("netUpdate", fields);
  }

  async traffic(index: number): Promise<LinkTraffic> {
    const fields = await this.#host.request("netStats", new FieldWriter().u32(index));
    const [sentBytes, sentPackets, receivedBytes, receivedPackets, refusedPackets] = Array.from({ length: 5 }, () =>
      Number(fields.u64()),
    ) as [number, number, number, number, number];
    return { sentBytes, sentPackets, receivedBytes, receivedPackets, refusedPackets };
  }

  async flows(index: number): Promise<Flow[]> {
    const fields = await this.#host.requestTwice("netFlows", new FieldWriter().u32(index));
    return Array.from({ length: fields.u32() }, () => {
      const destination = readAddress(fields);
      const ports = fields.u32();
      const protocol = fields.u32();
      return {
        destination,
        sourcePort: ports >>> 16,
        destinationPort: ports & 0xffff,
        protocol: protocol & 255,
        redirected: (protocol & 256) !== 0,
      };
    });
  }

  async cut(index: number, flows: readonly Flow[]): Promise<void> {
    for (let at = 0; at < flows.length; at += maxFlows) {
      const some = flows.slice(at, at + maxFlows);
      const fields = new FieldWriter().u32(index).u32(some.length);
      for (const { destination, sourcePort, destinationPort, protocol } of some)
        writeAddress(fields, destination)
          .u32(((sourcePort << 16) | destinationPort) >>> 0)
          .u32(protocol);
      await this.#host.requestTwice("netCut", fields);
    }
  }

  async shape(index: number, rates: { readonly toCell: number; readonly fromCell: number }): Promise<void> {
    await this.#host.request("netShape", new FieldWriter().u32(index).u64(rates.toCell).u64(rates.fromCell));
  }

  onPacket(listener: (packet: LoggedPacket) => void): void {
    this.#host.onPacket(listener);
  }
}

function writeElement(fields: FieldWriter, element: FirewallElement, removed: boolean): void {
  const { set, key, timeoutS = 0, mark, rate } = element;
  const kind = mark !== undefined ? kinds.mark : rate !== undefined ? kinds.rate : kinds.plain;
  fields
    .u32(removed ? 1 : 0)
    .string(set)
    .bytes(Buffer.from(key, "hex"))
    .u32(timeoutS)
    .u32(kind)
    .u32(mark ?? rate ?? 0);
}

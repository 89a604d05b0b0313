import { networkInterfaces } from "node:os";
import { formatAddress, parseAddress, widthOf } from "../core/egress/address.js";
import type { EgressPolicy } from "../core/egress/egress-policy.js";

const freshMs = 5_000;

/** Addresses of the machine itself, as they were a moment ago. */
export class OwnAddresses {
  readonly #read: () => ReturnType<typeof networkInterfaces>;
  #addresses = new Set<string>();
  #readAt = Number.NEGATIVE_INFINITY;

  constructor(read: () => ReturnType<typeof networkInterfaces> = networkInterfaces) {
    this.#read = read;
  }

  has(address: string): boolean {
    if (performance.now() - this.#readAt > freshMs) {
      const all = Object.values(this.#read()).flatMap((each) => each?.map((one) => canonical(one.address)) ?? []);
      this.#addresses = new Set(all);
      this.#readAt = performance.now();
    }
    return this.#addresses.has(canonical(address));
  }
}

/** IPv6 can be written in more than one way. */
function canonical(text: string): string {
  const address = text.includes(":") ? parseAddress(text) : null;
  return address === null ? text : formatAddress(address);
}

/**
 * A policy that takes the machine's own addresses for closed, public ones as well, unless an entry is that very address: connections that the
 * proxy makes come from the machine itself, where no firewall tells them from others. No entry opens `apiPort` there. The firewall has the same rule for all other ones.
 */
export function closedToOwn(policy: EgressPolicy, own: OwnAddresses, apiPort: number | null = null): EgressPolicy {
  const isClosed = (address: string, port: number | null = null): boolean =>
    own.has(address) && ((port !== null && port === apiPort) || !isOpened(address));
  const isOpened = (address: string): boolean =>
    policy.addressRules.some(
      ({ family, network, prefix, allowed }) => allowed && network === canonical(address) && prefix === widthOf(family),
    );
  const refusal = { allowed: false, rule: "address of the host" };
  return {
    silent: policy.silent,
    open: policy.open,
    enforcesNames: policy.enforcesNames,
    addressRules: policy.addressRules,
    lookup: (name) => policy.lookup(name),
    grantOf: (name) => policy.grantOf(name),
    acceptsAnswer: (address) => (isClosed(address) ? refusal : policy.acceptsAnswer(address)),
    connectByName: (name, port, protocol) => policy.connectByName(name, port, protocol),
    connectResolved: (address, port, protocol) =>
      isClosed(address, port) ? refusal : policy.connectResolved(address, port, protocol),
    connectByAddress: (address, port, protocol) =>
      isClosed(address, port) ? refusal : policy.connectByAddress(address, port, protocol),
  };
}

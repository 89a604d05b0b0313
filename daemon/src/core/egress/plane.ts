import type { Decision } from "./decision.js";
import type { PolicySpec } from "./egress-policy.js";

/** A sandbox as the resolver and the proxy have to know it. */
export interface PlaneClient {
  readonly sandbox: string;
  /** IPv4 address of its link, by which it is called */
  readonly address: string;
  /** null where it has no IPv6 */
  readonly address6: string | null;
  readonly spec: PolicySpec;
}

/** Since the sandbox was made known. */
export interface PlaneCounters {
  readonly dnsAllowed: number;
  readonly dnsRefused: number;
  readonly dnsLimited: number;
  /** connections through the proxy */
  readonly openConnections: number;
  readonly refusedConnections: number;
}

export interface PlaneEvents {
  /** A name was resolved for a sandbox: the answer leaves when this has put the addresses into force, and not at all when it throws. */
  learn(
    client: string,
    name: string,
    answer: { readonly addresses: readonly string[]; readonly ttlS: number },
  ): Promise<void>;
  decided(decision: Decision): void;
}

/** What decides by name: the resolver and the proxy. */
export interface EgressPlane {
  /** Makes a sandbox known, or its policy another one: when this returns, connections that the policy does not allow are cut. */
  set(client: PlaneClient): Promise<void>;
  /** Cuts everything; idempotent. */
  remove(address: string): Promise<void>;
  counters(address: string): Promise<PlaneCounters>;
}

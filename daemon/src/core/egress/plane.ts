import type { Decision } from "./decision.js";
import type { PolicySpec } from "./egress-policy.js";
import type { Authority } from "../secrets/authority.js";
import type { RotatedToken, Secret } from "../secrets/secret.js";
import type { SecretUse } from "../secrets/secret-use.js";

/** A sandbox as the resolver and the proxy have to know it. */
export interface PlaneClient {
  readonly sandbox: string;
  /** IPv4 address of its link, by which it is called */
  readonly address: string;
  /** null where it has no IPv6 */
  readonly address6: string | null;
  readonly spec: PolicySpec;
  /** names of the secrets that are put in for it, sorted */
  readonly secrets: readonly string[];
  /** fingerprint of the certificate authority that its root trusts; null for none, and no TLS of it can be read */
  readonly ca: string | null;
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

/** What becomes of secrets. Must not throw. */
export interface SecretEvents {
  used(use: SecretUse): void;
  /** To be kept: after a restart the one before would be asked with. */
  rotated(token: RotatedToken): void;
}

export interface PlaneEvents extends SecretEvents {
  /** A name was resolved for a sandbox: the answer leaves when this has put the addresses into force, and not at all when it throws. */
  learn(
    client: string,
    name: string,
    answer: { readonly addresses: readonly string[]; readonly ttlS: number },
  ): Promise<void>;
  decided(decision: Decision): void;
}

/** Everything that the proxy has to know of secrets. */
export interface PlaneSecrets {
  readonly secrets: readonly Secret[];
  readonly authorities: readonly Authority[];
}

/** What decides by name: the resolver and the proxy. */
export interface EgressPlane {
  /** Makes a sandbox known, or its policy another one: when this returns, connections that the policy does not allow are cut. */
  set(client: PlaneClient): Promise<void>;
  /** Cuts everything; idempotent. */
  remove(address: string): Promise<void>;
  counters(address: string): Promise<PlaneCounters>;
  /** Replaces the secrets of all: when this returns, connections that were given what a sandbox does not have any more are cut. */
  setSecrets(secrets: PlaneSecrets): Promise<void>;
}

import type { Decision } from "../core/egress/decision.js";
import type { RotatedToken } from "../core/secrets/secret.js";
import type { SecretUse } from "../core/secrets/secret-use.js";
import type { PlaneClient, PlaneCounters, PlaneSecrets } from "../core/egress/plane.js";

/** Ports on the gateway's address to which the firewall leads what sandboxes send. */
export interface PlanePorts {
  readonly dnsUdp: number;
  readonly dnsTcp: number;
  readonly http: number;
  readonly tls: number;
  /** the proxy that programs ask for by name */
  readonly explicit: number;
  /** the proxy's on the gateway's IPv6 address; 0 where there is none */
  readonly http6: number;
  readonly tls6: number;
}

export interface ThreadData {
  readonly gateway: string;
  /** null where sandboxes have no IPv6 */
  readonly gateway6: string | null;
  readonly resolvConf: string;
  /** port of the host's resolvers; another than 53 only in tests */
  readonly resolverPort: number;
  /** CIDRs of all sandboxes' addresses */
  readonly subnets: readonly string[];
  /** TCP port of the control API, which nothing leads to; null where it is a unix socket */
  readonly apiPort: number | null;
  /** PEM file of roots that servers' certificates are verified against besides the host's; null for none */
  readonly extraRoots: string | null;
  /** ports of an earlier thread, which the firewall still leads to */
  readonly ports: PlanePorts | null;
}

/** Each is answered by `done` with its id. */
export type ToThread =
  | { readonly type: "set"; readonly id: number; readonly client: PlaneClient }
  | { readonly type: "secrets"; readonly id: number; readonly secrets: PlaneSecrets }
  | { readonly type: "remove"; readonly id: number; readonly address: string }
  | { readonly type: "counters"; readonly id: number; readonly address: string }
  | { readonly type: "learned"; readonly id: number; readonly error: string | null }
  | { readonly type: "close"; readonly id: number };

export type FromThread =
  | { readonly type: "ready"; readonly ports: PlanePorts }
  | {
      readonly type: "done";
      readonly id: number;
      readonly counters: PlaneCounters | null;
      readonly error: string | null;
    }
  | {
      readonly type: "learn";
      readonly id: number;
      readonly client: string;
      readonly name: string;
      readonly answer: { readonly addresses: readonly string[]; readonly ttlS: number };
    }
  | { readonly type: "decided"; readonly decision: Decision }
  | { readonly type: "used"; readonly use: SecretUse }
  | { readonly type: "rotated"; readonly token: RotatedToken }
  | { readonly type: "report"; readonly error: string };

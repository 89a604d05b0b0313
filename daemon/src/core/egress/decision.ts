import type { Protocol } from "./egress-policy.js";

/** One decision on something that a sandbox wanted to reach. */
export interface Decision {
  readonly sandbox: string;
  /** who decided: the resolver, the proxy for HTTP or for TLS, or the firewall */
  readonly kind: "dns" | "http" | "tls" | "connection";
  readonly name: string | null;
  readonly address: string | null;
  readonly port: number | null;
  readonly protocol: Protocol | "icmp" | "other";
  readonly allowed: boolean;
  /** as in `Verdict` */
  readonly rule: string;
}

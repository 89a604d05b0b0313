import type { EgressPolicy } from "../core/egress/egress-policy.js";

/** A sandbox as egress sees it: by the address that its packets come from, which it cannot forge. */
export interface EgressClient {
  readonly sandbox: string;
  /** IPv4, by which it is called */
  readonly address: string;
  /** as it is now; a live change replaces it */
  readonly policy: EgressPolicy;
}

/** Who has an address of either family at this moment; undefined for nobody. */
export type FindClient = (address: string) => EgressClient | undefined;

/** One decision about one thing that a sandbox asked for. */
export interface EgressDecision {
  readonly sandbox: string;
  readonly kind: "dns" | "http" | "tls" | "connection";
  /** null where none was given, or none that is a name */
  readonly name: string | null;
  /** null before it is known */
  readonly address: string | null;
  readonly port: number | null;
  readonly protocol: "tcp" | "udp";
  readonly allowed: boolean;
  /** as `Verdict.rule` */
  readonly rule: string;
}

/** Takes note of a decision. Must not throw. */
export type Audit = (decision: EgressDecision) => void;

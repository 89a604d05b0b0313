import type { EgressPolicy } from "../core/egress/egress-policy.js";

/** A known sandbox, as those see it that answer its packets. */
export interface EgressClient {
  /** its id */
  readonly sandbox: string;
  /** its IPv4 address, which nobody else can send from */
  readonly address: string;
  readonly policy: EgressPolicy;
}

/** Who sends from an address; who is not known gets no answer. */
export type FindClient = (address: string) => EgressClient | undefined;

/** One decision about what a sandbox wanted, for the audit. */
export interface EgressDecision {
  readonly sandbox: string;
  readonly kind: "dns" | "http" | "tls" | "connection";
  readonly name: string | null;
  readonly address: string | null;
  readonly port: number | null;
  readonly protocol: "tcp" | "udp";
  readonly allowed: boolean;
  /** what decided, as `Verdict.rule` */
  readonly rule: string;
}

export type Audit = (decision: EgressDecision) => void;

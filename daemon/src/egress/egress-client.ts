import type { EgressPolicy } from "../core/egress/egress-policy.js";
import type { Authority } from "../core/secrets/authority.js";
import type { Secret } from "../core/secrets/secret.js";
import type { SecretUse } from "../core/secrets/secret-use.js";

/** A sandbox as egress sees it: by the address that its packets come from, which it cannot forge. */
export interface EgressClient {
  readonly sandbox: string;
  /** IPv4, by which it is called */
  readonly address: string;
  /** as it is now; a live change replaces it */
  readonly policy: EgressPolicy;
  /** those that it was granted, with their values, by name. One array for all that have the same ones, and another one when any has changed */
  readonly secrets: readonly Secret[];
  /** the certificate authority that its root trusts; null for none */
  readonly authority: Authority | null;
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

/** Takes note of a secret's use, or of its refusal. Must not throw. */
export type NoteUse = (use: SecretUse) => void;

/** Takes note of a decision. Must not throw. */
export type Audit = (decision: EgressDecision) => void;

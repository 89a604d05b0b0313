import type { EgressClient } from "../egress-client.js";
import { Turns } from "./rate-limit.js";
import { TunnelGuard } from "./tunnel-guard.js";

/** For each sandbox; docs/egress.md repeats these. */
export const clientLimits = {
  /** queries, whatever becomes of them; what is beyond waits, up to two seconds */
  queries: { perSecond: 10, burst: 20, waiting: 20 },
  /** queries that wait for an answer */
  pending: 32,
  connections: 4,
  /** at least so long between two notes in the audit that queries were dropped */
  auditLimitedMs: 1000,
} as const;

/** Queries of one sandbox since it became known. */
export interface DnsCounters {
  /** answered, if only with an error from upstream */
  readonly allowed: number;
  /** answered with a refusal, or, where nothing is allowed at all, not answered */
  readonly refused: number;
  /** dropped without an answer, because there were too many */
  readonly limited: number;
}

/** What is remembered of one sandbox. */
export class ClientState {
  readonly sandbox: string;
  readonly turns: Turns;
  readonly guard: TunnelGuard;
  readonly counters = { allowed: 0, refused: 0, limited: 0 };
  /** open TCP connections */
  readonly connections = new Set<{ destroy(): void }>();
  pending = 0;
  limitAuditedAt = -Infinity;

  constructor(sandbox: string, now: () => number) {
    this.sandbox = sandbox;
    this.turns = new Turns(clientLimits.queries, now);
    this.guard = new TunnelGuard(now);
  }

  end(): void {
    this.turns.end();
    for (const connection of this.connections) connection.destroy();
  }
}

/** What is remembered of all sandboxes, by address. */
export class ClientStates {
  readonly #states = new Map<string, ClientState>();
  readonly #now: () => number;

  constructor(now: () => number) {
    this.#now = now;
  }

  /** Another sandbox at the same address begins anew. */
  of({ address, sandbox }: EgressClient): ClientState {
    const known = this.#states.get(address);
    if (known?.sandbox === sandbox) return known;
    known?.end();
    const state = new ClientState(sandbox, this.#now);
    this.#states.set(address, state);
    return state;
  }

  counters(address: string): DnsCounters {
    return { ...(this.#states.get(address)?.counters ?? { allowed: 0, refused: 0, limited: 0 }) };
  }

  /** Nobody is answered any more. */
  end(): void {
    for (const state of this.#states.values()) state.end();
  }

  forget(address: string): void {
    this.#states.get(address)?.end();
    this.#states.delete(address);
  }
}

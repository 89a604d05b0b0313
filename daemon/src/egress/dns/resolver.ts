import { AnswerCache, type ResolveError } from "./answer-cache.js";
import type { UpstreamAnswer } from "./channel.js";
import { HostServers } from "./host-servers.js";
import type { AddressType, RecordData, RecordType } from "./record-types.js";
import { Upstream, upstreamLimits, type UpstreamLimits } from "./upstream.js";

/** docs/egress.md repeats these. */
export const resolverLimits = {
  /** seconds that an answer is kept, whatever its own TTL says */
  ttlS: { min: 5, max: 300 },
  /** for types whose TTL Node does not tell */
  unknownTtlS: 60,
  /** for names and types that do not exist */
  negativeTtlS: 15,
  failureTtlS: 5,
  /** addresses of one answer that are used, which bounds what one name puts into the kernel's sets */
  addresses: 32,
  /** of one answer, more of which are refused as a failure */
  records: 100,
  recordBytes: 16 * 1024,
  cache: { entries: 10_000, bytes: 16 * 1024 * 1024 },
} as const;

export interface ResolverOptions {
  /** in the format of resolv.conf(5) */
  readonly path: string;
  /** where the servers listen; 53 */
  readonly port?: number;
  readonly limits?: UpstreamLimits;
  readonly cache?: { readonly entries: number; readonly bytes: number };
  /** milliseconds on a clock that never goes back */
  readonly now?: () => number;
}

export interface Failed {
  readonly error: ResolveError;
}

/** `ttlS` is what remains, at least 1. */
export interface Addresses {
  readonly addresses: readonly string[];
  readonly ttlS: number;
}

export interface Records {
  readonly records: readonly RecordData[];
  readonly ttlS: number;
}

/** Asks the host's resolvers; one cache for all sandboxes. Nothing here throws: what cannot be asked is SERVFAIL. */
export class Resolver {
  readonly #servers: HostServers;
  readonly #port: number;
  readonly #limits: UpstreamLimits;
  readonly #cache: AnswerCache;
  #used: readonly string[] = [];
  #upstream: Upstream;
  #flights = new Map<string, Promise<Records | Failed>>();

  constructor({ path, port = 53, limits = upstreamLimits, cache = resolverLimits.cache, now }: ResolverOptions) {
    const clock = now ?? (() => performance.now());
    this.#servers = new HostServers(path, clock);
    this.#port = port;
    this.#limits = limits;
    this.#cache = new AnswerCache(cache, clock);
    this.#upstream = new Upstream([], limits);
  }

  /** Names are in lower case, without a final dot, and plain: see `isPlainName`. */
  async addresses(name: string, family: 4 | 6): Promise<Addresses | Failed> {
    const answer = await this.#resolve(name, family === 4 ? "A" : "AAAA");
    if ("error" in answer) return answer;
    const addresses = answer.records.flatMap(({ type, data }) => (type === "A" || type === "AAAA" ? [data] : []));
    return { addresses, ttlS: answer.ttlS };
  }

  records(name: string, type: RecordType): Promise<Records | Failed> {
    return this.#resolve(name, type);
  }

  async #resolve(name: string, type: AddressType | RecordType): Promise<Records | Failed> {
    const key = `${type} ${name}`;
    const kept = this.#cache.get(key);
    if (kept !== undefined) {
      void this.#follow();
      return answerOf(kept);
    }
    await this.#follow();
    const flying = this.#flights.get(key);
    if (flying !== undefined) return flying;
    const flights = this.#flights;
    const flight = this.#ask(name, type, key).finally(() => flights.delete(key));
    flights.set(key, flight);
    return flight;
  }

  async #ask(name: string, type: AddressType | RecordType, key: string): Promise<Records | Failed> {
    const upstream = this.#upstream;
    const answer = bounded(await upstream.ask(name, type));
    const ttlS = keptFor(answer);
    // what other servers said says nothing about what these would have
    if (ttlS > 0 && upstream === this.#upstream) this.#cache.set(key, answer.outcome, { ttlS, bytes: sizeOf(answer) });
    return answerOf({ outcome: answer.outcome, ttlS });
  }

  /** Other servers may have other answers, so nothing is kept when they change, nor waited for. */
  async #follow(): Promise<void> {
    const servers = await this.#servers.current();
    if (servers === this.#used) return;
    this.#used = servers;
    const addresses = servers.map((address) => (address.includes(":") ? `[${address}]` : address));
    this.#upstream = new Upstream(
      addresses.map((address) => `${address}:${this.#port}`),
      this.#limits,
    );
    this.#flights = new Map();
    this.#cache.clear();
  }
}

function answerOf({
  outcome,
  ttlS,
}: {
  readonly outcome: UpstreamAnswer["outcome"];
  readonly ttlS: number;
}): Records | Failed {
  return "error" in outcome ? outcome : { records: outcome.records, ttlS };
}

function bounded(answer: UpstreamAnswer): UpstreamAnswer {
  const { outcome, ttlS } = answer;
  if ("error" in outcome) return answer;
  const isAddress = outcome.records[0]?.type === "A" || outcome.records[0]?.type === "AAAA";
  if (isAddress) return { outcome: { records: outcome.records.slice(0, resolverLimits.addresses) }, ttlS };
  const fits = outcome.records.length <= resolverLimits.records && sizeOf(answer) <= resolverLimits.recordBytes;
  return fits ? answer : { outcome: { error: "SERVFAIL" }, ttlS: null };
}

function keptFor({ outcome, ttlS }: UpstreamAnswer): number {
  const { min, max } = resolverLimits.ttlS;
  if (!("error" in outcome)) return Math.min(max, Math.max(min, ttlS ?? resolverLimits.unknownTtlS));
  return ttlS ?? (outcome.error === "SERVFAIL" ? resolverLimits.failureTtlS : resolverLimits.negativeTtlS);
}

/** About what an answer's records take, in bytes. */
function sizeOf({ outcome }: UpstreamAnswer): number {
  if ("error" in outcome) return 0;
  return outcome.records.reduce((sum, record) => sum + 64 + dataSize(record), 0);
}

function dataSize({ data }: RecordData): number {
  if (typeof data === "string") return data.length;
  if (Array.isArray(data)) return data.reduce((sum, text) => sum + text.length + 1, 0);
  return Object.values(data).reduce<number>((sum, value) => sum + String(value).length, 0);
}

import { promises as dns, type CaaRecord } from "node:dns";
import type { Outcome, ResolveError } from "./answer-cache.js";
import { isPlainName, type AddressType, type RecordData, type RecordType } from "./record-types.js";

/** What upstream said. `ttlS` is null where Node does not tell it. */
export interface UpstreamAnswer {
  readonly outcome: Outcome;
  readonly ttlS: number | null;
}

/** c-ares asks each server so often, and waits so long for the first answer of each, then longer. */
const attempts = { timeout: 1000, tries: 2 };

/**
 * One c-ares channel, which asks one question at a time: it closes its socket when none is open, so that each question goes out from
 * a port of its own, and cancelling it ends just that one.
 */
export class Channel {
  readonly #resolver = new dns.Resolver(attempts);

  constructor(servers: readonly string[]) {
    this.#resolver.setServers(servers);
  }

  /** Never throws. */
  async ask(name: string, type: AddressType | RecordType): Promise<UpstreamAnswer> {
    try {
      const { records, ttlS } = await this.#query(name, type);
      if (records.length === 0) return { outcome: { error: "NODATA" }, ttlS: null };
      if (!records.every(isSound)) return { outcome: { error: "SERVFAIL" }, ttlS: null };
      return { outcome: { records }, ttlS };
    } catch (error) {
      return { outcome: { error: errorOf(error) }, ttlS: null };
    }
  }

  /** Makes `ask` return SERVFAIL now. */
  cancel(): void {
    this.#resolver.cancel();
  }

  async #query(
    name: string,
    type: AddressType | RecordType,
  ): Promise<{ readonly records: readonly RecordData[]; readonly ttlS: number | null }> {
    const resolver = this.#resolver;
    switch (type) {
      case "A":
        return ofAddresses("A", await resolver.resolve4(name, { ttl: true }));
      case "AAAA":
        return ofAddresses("AAAA", await resolver.resolve6(name, { ttl: true }));
      case "CAA":
        return withoutTtl((await resolver.resolveCaa(name)).flatMap(caaOf));
      case "CNAME":
        return withoutTtl((await resolver.resolveCname(name)).map((data) => ({ type, data })));
      case "MX":
        return withoutTtl(
          (await resolver.resolveMx(name)).map(({ priority, exchange }) => ({
            type,
            data: { preference: priority, exchange: exchange || "." },
          })),
        );
      case "NS":
        return withoutTtl((await resolver.resolveNs(name)).map((data) => ({ type, data })));
      case "PTR":
        return withoutTtl((await resolver.resolvePtr(name)).map((data) => ({ type, data })));
      case "SOA": {
        const { nsname, hostmaster, minttl, ...numbers } = await resolver.resolveSoa(name);
        return withoutTtl([{ type, data: { mname: nsname, rname: hostmaster, minimum: minttl, ...numbers } }]);
      }
      case "SRV":
        return withoutTtl(
          (await resolver.resolveSrv(name)).map(({ name: target, ...numbers }) => ({
            type,
            data: { target: target || ".", ...numbers },
          })),
        );
      case "TXT":
        return withoutTtl(
          (await resolver.resolveTxt(name)).map((texts) => ({
            type,
            data: texts.map((text) => Buffer.from(text, "latin1")), // Node makes a character of each byte
          })),
        );
    }
  }
}

function ofAddresses(
  type: AddressType,
  found: readonly { readonly address: string; readonly ttl: number }[],
): { readonly records: readonly RecordData[]; readonly ttlS: number } {
  return {
    records: found.map(({ address }) => ({ type, data: address })),
    ttlS: Math.min(...found.map(({ ttl }) => ttl)),
  };
}

function withoutTtl(records: readonly RecordData[]): { readonly records: readonly RecordData[]; readonly ttlS: null } {
  return { records, ttlS: null };
}

/** Node gives the tag as the name of a property. */
function caaOf(record: CaaRecord): RecordData[] {
  const tags = Object.entries(record).filter(([tag, value]) => tag !== "critical" && typeof value === "string");
  return tags.map(([tag, value]) => ({
    type: "CAA",
    data: { flags: record.critical, tag: tag as "issue", value: String(value) },
  }));
}

/** Whether a record can be said again: its names need no escapes, which are not understood here. */
function isSound(record: RecordData): boolean {
  switch (record.type) {
    case "A":
    case "AAAA":
    case "TXT":
      return true;
    case "CAA":
      return record.data.tag.length <= 255 && record.data.value.length <= 8_000;
    case "CNAME":
    case "NS":
    case "PTR":
      return isPlainName(record.data);
    case "MX":
      return isTarget(record.data.exchange);
    case "SRV":
      return isTarget(record.data.target);
    case "SOA":
      return isPlainName(record.data.mname) && isPlainName(record.data.rname);
  }
}

/** The root as a target says that there is no such service. Source: RFC 2782, RFC 7505 */
function isTarget(name: string): boolean {
  return name === "." || isPlainName(name);
}

function errorOf(error: unknown): ResolveError {
  const { code } = error as NodeJS.ErrnoException;
  if (code === "ENODATA") return "NODATA";
  return code === "ENOTFOUND" ? "NXDOMAIN" : "SERVFAIL";
}

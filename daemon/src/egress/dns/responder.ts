import type { Audit, EgressClient, EgressDecision, FindClient } from "../egress-client.js";
import type { ClientState } from "./client-states.js";
import { rcode, type Query } from "./query.js";
import { typeName, type AddressType, type RecordType } from "./record-types.js";
import { codeOf, emptyReply, type Reply } from "./reply.js";
import type { Resolver } from "./resolver.js";

const learnDeadlineMs = 5000;

/** Lets a sandbox connect to what a name resolved to, for at least `ttlS`. It is done when the kernel knows. */
export type Learn = (
  client: EgressClient,
  name: string,
  answer: { readonly addresses: readonly string[]; readonly ttlS: number },
) => Promise<void>;

export interface ResponderOptions {
  readonly find: FindClient;
  readonly resolver: Resolver;
  readonly learn: Learn;
  readonly audit: Audit;
  /** whether sandboxes have IPv6; where not, no name has an address of it */
  readonly ipv6: boolean;
  /** told of failures that no sandbox is to blame for */
  readonly report: (error: Error) => void;
}

/** Who asks, and how. */
export interface Asker {
  readonly client: EgressClient;
  readonly state: ClientState;
  readonly protocol: "tcp" | "udp";
}

/** A name that was asked for, and what the asker's policy says of it. */
interface Asked extends Asker {
  readonly name: string;
  readonly rule: string;
}

/** Decides what a query is answered with. */
export class Responder {
  readonly #options: ResponderOptions;

  constructor(options: ResponderOptions) {
    this.#options = options;
  }

  /** Returns null where there is to be no answer. Throws only where `audit` does. */
  async answer(query: Query, asker: Asker): Promise<Reply | null> {
    const { policy } = asker.client;
    const verdict = policy.lookup(query.name);
    const asked = { ...asker, name: query.name, rule: verdict.rule };
    if (policy.silent) return this.#silence(asked);
    if (!verdict.allowed) return this.#refuse(asked, verdict.rule);
    if (query.edns !== null && query.edns.version !== 0) return this.#refuse(asked, "EDNS version", rcode.badVersion);
    const type = typeName(query.type);
    if (type === undefined) return this.#refuse(asked, `DNS type ${query.type}`, rcode.notImp);
    if (type === "ANY" || type === "AXFR" || type === "IXFR") return this.#refuse(asked, `DNS type ${type}`);
    const tunnel = verdict.wildcard ? asker.state.guard.refusal(query.name, verdict.rule) : null;
    if (tunnel !== null) return this.#refuse(asked, tunnel);
    if (type === "A" || (type === "AAAA" && this.#options.ipv6)) return this.#addresses(asked, type);
    // without HTTPS records, nobody learns keys for encrypted hellos, nor addresses given as hints
    if (type === "AAAA" || type === "HTTPS" || type === "SVCB") return this.#allow(asked, emptyReply(rcode.noError));
    return this.#records(asked, type);
  }

  async #addresses(asked: Asked, type: AddressType): Promise<Reply | null> {
    const { find, resolver, learn, report } = this.#options;
    const found = await resolver.addresses(asked.name, type === "A" ? 4 : 6);
    const current = this.#current(asked);
    if (current === null || "code" in current) return current;
    if ("error" in found) return this.#allow(current, emptyReply(codeOf(found.error)));
    const { client, name } = current;
    for (const address of found.addresses) {
      const { allowed, rule } = client.policy.acceptsAnswer(address);
      if (!allowed) return this.#refuse(current, rule, rcode.refused, address);
    }
    try {
      await withDeadline(learn(client, name, found), learnDeadlineMs);
    } catch (cause) {
      report(new Error(`Cannot open the way to "${name}" for sandbox "${client.sandbox}"`, { cause }));
      return this.#refuse(current, "failure to open the way to its addresses", rcode.servFail);
    }
    if (find(client.address)?.sandbox !== client.sandbox) return null;
    const records = found.addresses.map((data) => ({ type, data }));
    return this.#allow(current, { code: rcode.noError, records, ttlS: found.ttlS });
  }

  async #records(asked: Asked, type: RecordType): Promise<Reply | null> {
    const found = await this.#options.resolver.records(asked.name, type);
    const current = this.#current(asked);
    if (current === null || "code" in current) return current;
    return this.#allow(current, "error" in found ? emptyReply(codeOf(found.error)) : { code: rcode.noError, ...found });
  }

  /** The same after a wait: null when the asker is gone, the refusal when its policy no longer allows the name. */
  #current(asked: Asked): Asked | Reply | null {
    const client = this.#options.find(asked.client.address);
    if (client?.sandbox !== asked.client.sandbox) return null;
    if (client.policy === asked.client.policy) return asked;
    const verdict = client.policy.lookup(asked.name);
    const current = { ...asked, client, rule: verdict.rule };
    if (client.policy.silent) return this.#silence(current);
    return verdict.allowed ? current : this.#refuse(current, verdict.rule);
  }

  #allow(asked: Asked, reply: Reply): Reply {
    asked.state.counters.allowed += 1;
    this.#audit(asked, { address: null, allowed: true, rule: asked.rule });
    return reply;
  }

  #refuse(asked: Asked, rule: string, code = rcode.refused, address: string | null = null): Reply {
    asked.state.counters.refused += 1;
    this.#audit(asked, { address, allowed: false, rule });
    return emptyReply(code);
  }

  #silence(asked: Asked): null {
    this.#refuse(asked, asked.rule);
    return null;
  }

  #audit(asked: Asked, what: Pick<EgressDecision, "address" | "allowed" | "rule">): void {
    const { client, name, protocol } = asked;
    this.#options.audit({ sandbox: client.sandbox, kind: "dns", name, port: null, protocol, ...what });
  }
}

/** Fails when `work` takes longer. */
async function withDeadline(work: Promise<void>, deadlineMs: number): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`It takes longer than ${deadlineMs} ms`)), deadlineMs);
  });
  try {
    await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}

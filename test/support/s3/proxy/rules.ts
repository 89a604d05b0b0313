/** What is done to a request. Bytes are those of the bodies as they are on the wire. */
export type Fault =
  /** goes on after so long */
  | { readonly kind: "latency"; readonly ms: number }
  /** both connections are reset once so many bytes of the request's body went on to the server */
  | { readonly kind: "reset-request"; readonly afterBytes: number }
  /** the server has done all, and the client is reset without a byte of an answer */
  | { readonly kind: "lose-response" }
  /** reset after so many bytes of the answer's body */
  | { readonly kind: "reset-response"; readonly afterBytes: number }
  /** the connection is closed in order after so many bytes of the answer's body, though its length says more */
  | { readonly kind: "truncate"; readonly afterBytes: number }
  /** all bits of that byte of the answer's body are flipped */
  | { readonly kind: "corrupt"; readonly offset: number }
  /** answered by the proxy, with an error document, once the request's body has come; the server hears nothing */
  | { readonly kind: "answer"; readonly status: number; readonly code: string }
  /** nothing goes on any more once so many bytes of the request's body went on to the server, and no connection is closed */
  | { readonly kind: "stall-request"; readonly afterBytes: number }
  /** likewise with the answer's body; without a number not even its head comes */
  | { readonly kind: "stall-response"; readonly afterBytes?: number };

/** Which requests a fault is for. All that is named must fit. */
export interface Rule {
  /** such as "PUT" */
  readonly method?: string;
  /** source of a regular expression for the path with its query, decoded, such as "/manifest\\.json" or "[?&]uploads" */
  readonly path?: string;
  /** how many that fit are let through first; default 0 */
  readonly skip?: number;
  /** for how many then; default: for all */
  readonly times?: number;
  readonly fault: Fault;
}

/** How often a rule has been of use. */
export interface RuleCount {
  readonly id: number;
  /** requests that fit it, let through or not */
  readonly matched: number;
  /** requests that had the fault */
  readonly applied: number;
}

interface Counted {
  readonly rule: Rule;
  readonly pattern: RegExp;
  matched: number;
  applied: number;
}

/** The rules of a proxy, in the order in which they came. */
export class Rules {
  readonly #rules = new Map<number, Counted>();
  #lastId = 0;

  add(rule: Rule): number {
    const id = ++this.#lastId;
    this.#rules.set(id, { rule, pattern: new RegExp(rule.path ?? ""), matched: 0, applied: 0 });
    return id;
  }

  remove(id: number): void {
    this.#rules.delete(id);
  }

  counts(): RuleCount[] {
    return [...this.#rules].map(([id, { matched, applied }]) => ({ id, matched, applied }));
  }

  /** The fault for a request: that of the first rule that has one for it. Every rule that fits counts it. */
  faultFor(method: string, path: string): Fault | null {
    let found: Fault | null = null;
    for (const each of this.#rules.values()) {
      const { rule, pattern } = each;
      if ((rule.method !== undefined && rule.method !== method) || !pattern.test(path)) continue;
      each.matched++;
      if (found !== null || each.matched <= (rule.skip ?? 0) || each.applied >= (rule.times ?? Infinity)) continue;
      each.applied++;
      found = rule.fault;
    }
    return found;
  }
}

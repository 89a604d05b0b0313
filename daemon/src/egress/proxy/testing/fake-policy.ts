import type { EgressPolicy, NameGrant, Protocol, Verdict } from "../../../core/egress/egress-policy.js";

/** Allows the names and refuses the addresses that it is told, on 80 and 443 alike. */
export class FakePolicy implements EgressPolicy {
  readonly silent = false;
  readonly open = false;
  readonly enforcesNames = true;
  readonly addressRules = [];
  readonly #names: ReadonlySet<string>;
  readonly #refused: ReadonlySet<string>;

  /** @param names or addresses */
  constructor(names: readonly string[], refusedAddresses: readonly string[] = []) {
    this.#names = new Set(names);
    this.#refused = new Set(refusedAddresses);
  }

  connectByName(name: string, _port: number, protocol: Protocol): Verdict {
    const allowed = protocol === "tcp" && this.#names.has(name);
    return { allowed, rule: allowed ? `allow ${name}` : "not listed" };
  }

  connectResolved(address: string): Verdict {
    const allowed = !this.#refused.has(address);
    return { allowed, rule: allowed ? "public" : "private address" };
  }

  lookup(): Verdict & { wildcard: boolean } {
    throw new Error("DNS is not the proxy's");
  }

  grantOf(): NameGrant {
    throw new Error("nftables is not the proxy's");
  }

  acceptsAnswer(): Verdict {
    throw new Error("DNS is not the proxy's");
  }

  connectByAddress(address: string, port: number, protocol: Protocol): Verdict {
    return this.connectByName(address, port, protocol);
  }
}

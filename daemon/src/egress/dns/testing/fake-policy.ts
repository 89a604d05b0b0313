import ipaddr from "ipaddr.js";
import type { EgressPolicy } from "../../../core/egress/egress-policy.js";

export interface FakeRules {
  /** names, or `*.suffix` */
  readonly allow?: readonly string[];
  readonly silent?: boolean;
  /** special addresses that are accepted nevertheless */
  readonly accept?: readonly string[];
}

/** A policy of names. What connections may do is not asked by DNS, hence fails. */
export function fakePolicy({ allow = [], silent = false, accept = [] }: FakeRules): EgressPolicy {
  const notAsked = (): never => {
    throw new Error("Cannot answer: DNS has no business to ask");
  };
  return {
    silent,
    open: false,
    enforcesNames: true,
    addressRules: [],
    lookup: (name) => {
      const entry = allow.find((one) => (one.startsWith("*.") ? name.endsWith(one.slice(1)) : one === name));
      if (entry === undefined) return { allowed: false, rule: "not allowed", wildcard: false };
      return { allowed: true, rule: `allow ${entry}:443`, wildcard: entry.startsWith("*.") };
    },
    acceptsAnswer: (address) => {
      const documentation = address.startsWith("192.0.2."); // stands for public addresses in tests
      const allowed = documentation || ipaddr.parse(address).range() === "unicast" || accept.includes(address);
      return { allowed, rule: allowed ? "public" : "private address" };
    },
    grantOf: notAsked,
    connectByName: notAsked,
    connectResolved: notAsked,
    connectByAddress: notAsked,
  };
}

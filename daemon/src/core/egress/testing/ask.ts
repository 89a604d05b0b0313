import type { EgressPolicy, Protocol, Verdict } from "../egress-policy.js";
import { parsePolicy } from "../policy.js";

export const context = { subnets: ["10.200.0.0/14"] };

/** A policy of two lists, their entries apart by spaces; an empty `allow` is null. */
export function policyOf(allow: string, deny = ""): EgressPolicy {
  const entries = (list: string): string[] => list.split(" ").filter((entry) => entry !== "");
  return parsePolicy({ allow: allow === "" ? null : entries(allow), deny: entries(deny) }, context);
}

/**
 * Asks as a row of a table does: `lookup NAME`, `answer ADDRESS`, or `name`, `address` or `resolved` with `HOST PORT` or
 * `HOST PORT/udp`. The reply is `yes: RULE` or `no: RULE`, for lookups `wildcard: RULE` where it was one.
 */
export function ask(policy: EgressPolicy, question: string): string {
  const [kind = "", host = "", port = ""] = question.split(" ");
  const [number, protocol = "tcp"] = port.split("/");
  const at: [string, number, Protocol] = [host, Number(number), protocol as Protocol];
  switch (kind) {
    case "lookup": {
      const { wildcard, ...verdict } = policy.lookup(host);
      return wildcard ? `wildcard: ${verdict.rule}` : show(verdict);
    }
    case "answer":
      return show(policy.acceptsAnswer(host));
    case "name":
      return show(policy.connectByName(...at));
    case "address":
      return show(policy.connectByAddress(...at));
    case "resolved":
      return show(policy.connectResolved(...at));
    default:
      throw new Error(`Cannot ask "${question}"`);
  }
}

function show({ allowed, rule }: Verdict): string {
  return `${allowed ? "yes" : "no"}: ${rule}`;
}

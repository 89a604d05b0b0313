import { marks, modes } from "../../core/egress/firewall.js";
import { special } from "./ruleset-lookups.js";

/** What differs between the families in the chains that decide on a packet. */
interface Family {
  /** end of the names of its chains and sets */
  readonly suffix: "" | "6";
  readonly protocol: "ip" | "ip6";
  readonly ping: string;
  /** ends of the names of its maps of whole addresses */
  readonly whole: string;
}

export const familyIpv4: Family = { suffix: "", protocol: "ip", ping: "icmp type echo-request", whole: "32" };
export const familyIpv6: Family = { suffix: "6", protocol: "ip6", ping: "icmpv6 type echo-request", whole: "6_128" };

const { permitted, refused } = marks;

/** One chain for each mode, and the one for the host's own addresses. */
export function decisionChains(family: Family, apiPort: number | null): string {
  const { suffix, protocol, ping, whole } = family;
  const ends = `${protocol} saddr . ${protocol} daddr`;
  const api = apiPort === null ? "" : `    tcp dport ${apiPort} goto refuse\n`;
  const decided = `meta mark vmap { ${permitted} : goto permit, ${refused} : goto refuse, ${special} : goto refuse }`;
  const lookUpAll = `meta l4proto { tcp, udp } jump by_address${suffix}
    ${decided}`;
  // to other resolvers only where an entry names that very port, and no more precise one denies the address
  const noResolvers = `meta l4proto { tcp, udp } th dport { 53, 853 } goto resolvers${suffix}`;
  // where no entry has decided: addresses of the host's own, and what routes lead nowhere
  const publicOnly = `fib daddr type != unicast goto refuse
    ${protocol} daddr @special${suffix} goto refuse`;
  // the proxy's share, which is reached by TCP alone
  const byName = "udp dport 443 goto refuse\n    tcp dport { 80, 443 } accept";
  const otherProtocols = "meta l4proto != { tcp, udp } goto refuse";
  const learnedPort = `meta mark set ${ends} . meta l4proto . th dport map @learned${suffix}_port
    meta mark vmap { ${permitted} : goto permit, ${refused} : goto refuse }`;
  const named = [noResolvers, lookUpAll, publicOnly, byName, otherProtocols, learnedPort].join("\n    ");
  return `  chain open${suffix} {
    jump by_address${suffix}
    ${decided}
    ${publicOnly}
    ${still(modes.open)}
    meta l4proto { tcp, udp } goto permit
    ${ping} goto permit
    goto refuse
  }
  chain open_proxied${suffix} {
    jump by_address${suffix}
    ${decided}
    ${publicOnly}
    ${byName}
    ${still(modes.openProxied)}
    meta l4proto { tcp, udp } goto permit
    ${ping} goto permit
    goto refuse
  }
  chain open_named${suffix} {
    ${named}
    ${still(modes.openNamed)}
    goto permit
  }
  chain listed${suffix} {
    ${noResolvers}
    ${lookUpAll}
    goto refuse
  }
  chain listed_named${suffix} {
    ${named}
    meta mark set ${ends} map @learned${suffix}
    meta mark ${permitted} goto permit
    goto refuse
  }
  chain own${suffix} {
${api}    meta l4proto { tcp, udp } meta mark set ${ends} map @net${whole}
    meta l4proto { tcp, udp } meta mark set ${ends} . meta l4proto . th dport map @port${whole}
    meta mark ${permitted} goto permit
    goto refuse
  }`;
}

/**
 * Each look-up of a packet sees the sets as they are at that moment. Where a policy changes in the midst of its look-ups, that it was open once
 * says nothing about entries which are gone by now: it is dropped, and decided on anew when it is sent again.
 */
function still(mode: number): string {
  return `meta mark set iifname map @mode
    meta mark != ${mode} drop`;
}

import { covers, readNetwork } from "../../core/egress/address.js";
import { marks, modes, proxyPort } from "../../core/egress/firewall.js";
import { decisionChains, familyIpv4, familyIpv6 } from "./ruleset-decisions.js";
import { lookups4, lookups6, maps4, maps6 } from "./ruleset-lookups.js";

/** What the static ruleset depends on; nothing of it changes while squashd runs. */
export interface RulesetFacts {
  /** CIDR that all sandboxes' addresses are of */
  readonly subnet: string;
  /** the address that every sandbox knows as its gateway and resolver */
  readonly gateway: string;
  /** where squashd answers on the gateway's address */
  readonly ports: {
    readonly dnsUdp: number;
    readonly dnsTcp: number;
    readonly http: number;
    readonly tls: number;
    readonly explicit: number;
  };
  /** TCP port of the control API; null where it is a unix socket */
  readonly apiPort: number | null;
  /** CIDRs that are not public, which only an entry by address opens */
  readonly specialRanges: readonly string[];
  /** tracked connections that a sandbox may have at once */
  readonly connectionLimit: number;
  /** interfaces that forward what they receive only because squashd made them, which sandboxes alone are to profit by */
  readonly closedInterfaces: readonly string[];
  /** null where sandboxes have no IPv6; what they send of it is dropped then */
  readonly ipv6: Facts6 | null;
}

export interface Facts6 {
  readonly subnet: string;
  readonly gateway: string;
  readonly ports: { readonly http: number; readonly tls: number };
  /** whether the machine forwards only because squashd made it, which sandboxes alone are to profit by */
  readonly isClosed: boolean;
}

/** native/src/link.h has the same number: the group of all links' ends on the host */
const linkGroup = 21_329;
/** what packets of sandboxes carry past the second table, which drops those without it: native/src/guard.h has the same number */
const guardStamp = 0x73717368;
/** native/src/firewall.h has the same number */
const logGroup = 21_329;

export const tableName = "squash";

/** Packets carry these between the decision and the redirection, then the stamp for the guard, and nothing afterwards. */
const { permitted } = marks;
/** of DNS queries, somewhat above the limit that the resolver counts by: see clientLimits in egress/dns/client-states.ts */
const queryLimit = "limit rate over 50/second burst 50 packets";

/**
 * The whole firewall of squashd as one text for `nft -f`, which replaces an earlier one in a single transaction. It decides on packets of
 * sandboxes' links only, which it knows by their group. Sandboxes come and go as elements of its sets: see core/egress/elements.ts.
 */
export function renderRuleset(facts: RulesetFacts): string {
  return `table inet ${tableName}
delete table inet ${tableName}
table inet ${tableName} {
${sets(facts)}
${decisions(facts)}
${hooks(facts)}
}
`;
}

function sets({ specialRanges, closedInterfaces, ipv6 }: RulesetFacts): string {
  const names = closedInterfaces.map((name) => JSON.stringify(name)).join(", ");
  return `  set links { type ifname . ipv4_addr; }
  set asking { type ifname; }
  set proxied { type ifname; }
  set explicit { type ifname; }
  map mode { type ifname : mark; }
  set refused { type ifname; counter; }
  set rates { type ifname; limit rate over 1000/second; }
  map learned { type ipv4_addr . ipv4_addr : mark; flags timeout; }
  map learned_port { type ipv4_addr . ipv4_addr . inet_proto . inet_service : mark; flags timeout; }
  set tracked { type ifname; size 65536; flags dynamic; }
  set noisy { type ifname; size 65536; flags dynamic, timeout; timeout 1m; }
  set queries { type ifname; size 65536; flags dynamic, timeout; timeout 1m; }
  set special { type ipv4_addr; flags interval; auto-merge; elements = { ${specialRanges.join(", ")} }; }
  set closed { type ifname;${names === "" ? "" : ` elements = { ${names} };`} }
${maps4()}${ipv6 === null ? "" : `\n${maps6()}`}`;
}

function decisions(facts: RulesetFacts): string {
  const { gateway, subnet, apiPort, connectionLimit, specialRanges, ipv6 } = facts;
  const counted = `iifname @rates goto refuse
    add @tracked { iifname ct count over ${connectionLimit} } goto refuse`;
  const limits = `${counted}
    meta mark set iifname map @mode
    meta mark vmap`;
  const chains6 = `
${lookups6()}
${decisionChains(familyIpv6, apiPort)}
  chain decide6 {
    ip6 daddr ${ipv6?.subnet} goto refuse
    fib daddr type { local, anycast } goto own6
    ${limits} { ${modeChains("6")} }
    goto refuse
  }`;
  return `  chain permit {
    meta mark set ${permitted}
    update @noisy { iifname limit rate 10/second burst 40 packets } log prefix "allowed" group ${logGroup}
    accept
  }
  chain refuse {
    iifname @refused
    update @noisy { iifname limit rate 10/second burst 40 packets } log prefix "refused" group ${logGroup}
    meta mark set 0
    meta l4proto tcp reject with tcp reset
    reject with icmpx admin-prohibited
  }
${lookups4(specialRanges)}
  chain flood {
    iifname @refused
    drop
  }
  chain explicit {
    ${counted}
    accept
  }
  chain gateway {
    iifname @asking udp dport 53 accept
    iifname @asking tcp dport 53 update @queries { iifname ${queryLimit} } goto refuse
    iifname @asking tcp dport 53 accept
    iifname @explicit tcp dport ${proxyPort} goto explicit
    goto refuse
  }
${decisionChains(familyIpv4, apiPort)}${ipv6 === null ? "" : chains6}
  chain decide {
    ip daddr ${gateway} udp dport 53 update @queries { iifname ${queryLimit} } goto flood
    ct state established,related accept
    ct state invalid drop${ipv6 === null ? "" : "\n    meta nfproto ipv6 goto decide6"}
    ip daddr ${gateway} goto gateway
    ip daddr ${subnet} goto refuse
    fib daddr type local goto own
    ${limits} { ${modeChains("")} }
    goto refuse
  }`;
}

function modeChains(suffix: "" | "6"): string {
  const { open, openNamed, openProxied, listed, listedNamed } = modes;
  const opened = [`${open} : goto open`, `${openNamed} : goto open_named`, `${openProxied} : goto open_proxied`];
  const chains = [...opened, `${listed} : goto listed`, `${listedNamed} : goto listed_named`];
  return chains.map((each) => each + suffix).join(", ");
}

function hooks({ gateway, subnet, ports, ipv6 }: RulesetFacts): string {
  return `  chain spoof {
    type filter hook prerouting priority raw; policy accept;
    meta iifgroup != ${linkGroup} accept
    iifname . ip saddr @links accept${ipv6 === null ? "" : spoof6}
    drop
  }
  chain prerouting {
    type filter hook prerouting priority mangle; policy accept;
    meta iifgroup != ${linkGroup} accept
    meta mark set 0
    goto decide
  }
  chain to_squashd {
    type nat hook prerouting priority dstnat; policy accept;
    meta iifgroup != ${linkGroup} accept
    ip daddr ${gateway} udp dport 53 dnat ip to ${gateway}:${ports.dnsUdp}
    ip daddr ${gateway} tcp dport 53 dnat ip to ${gateway}:${ports.dnsTcp}
    ip daddr ${gateway} tcp dport ${proxyPort} dnat ip to ${gateway}:${ports.explicit}
    meta mark ${permitted} accept
    meta nfproto ipv4 iifname @proxied tcp dport 80 dnat ip to ${gateway}:${ports.http}
    meta nfproto ipv4 iifname @proxied tcp dport 443 dnat ip to ${gateway}:${ports.tls}${ipv6 === null ? "" : toSquashd6(ipv6)}
  }
  chain stamp {
    type filter hook prerouting priority -90; policy accept;
    meta iifgroup ${linkGroup} meta mark set ${guardStamp}
  }
  chain unmark {
    type filter hook prerouting priority -70; policy accept;
    meta iifgroup ${linkGroup} meta mark set 0
  }${ipv6 === null ? "" : closed6(ipv6)}
  chain forward {
    type filter hook forward priority filter - 1; policy accept;
    meta oifgroup ${linkGroup} ct state established,related ct direction reply accept
    meta oifgroup ${linkGroup} drop
    meta nfproto ipv4 iifname @closed drop${ipv6 === null ? "" : `\n    meta nfproto ipv6 meta iifgroup != ${linkGroup} jump closed6`}
  }
  chain output {
    type filter hook output priority filter - 1; policy accept;
    meta oifgroup ${linkGroup} ct state established,related accept
    meta oifgroup ${linkGroup} drop
  }
  chain input {
    type filter hook input priority filter - 1; policy accept;
    meta iifgroup ${linkGroup} accept
    iifname "lo" accept
    ip daddr ${gateway} drop${ipv6 === null ? "" : `\n    ip6 daddr ${ipv6.gateway} drop`}
  }
  chain from_sandboxes {
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr ${subnet} meta oifgroup != ${linkGroup} oifname != "lo" masquerade${ipv6 === null ? "" : masquerade6(ipv6)}
  }`;
}

/**
 * Of IPv6 only what a plain connection needs: headers between the first and the transport's are for routers and tunnels, and there are no
 * neighbours to be asked for, nor routers to be announced. Fragments have been put together by now.
 */
const spoof6 = `
    ip6 nexthdr != { 6, 17, 58 } drop
    icmpv6 type != { destination-unreachable, packet-too-big, time-exceeded, parameter-problem, echo-request } drop
    iifname . ip6 saddr @links6 accept`;

function toSquashd6({ gateway, ports }: Facts6): string {
  return `
    meta nfproto ipv6 iifname @proxied tcp dport 80 dnat ip6 to [${gateway}]:${ports.http}
    meta nfproto ipv6 iifname @proxied tcp dport 443 dnat ip6 to [${gateway}]:${ports.tls}`;
}

/** Forwarding of IPv6 is a matter of the whole machine, not of interfaces as that of IPv4 is. Emptied when it is somebody else's business. */
function closed6({ isClosed }: Facts6): string {
  return `
  chain closed6 {${isClosed ? "\n    drop" : ""}
  }`;
}

/** Public addresses are routed to the machine by whoever gave them; private ones lead back from nowhere. */
function masquerade6({ subnet }: Facts6): string {
  if (!covers(readNetwork("fc00::/7"), readNetwork(subnet))) return "";
  return `
    ip6 saddr ${subnet} meta oifgroup != ${linkGroup} oifname != "lo" masquerade`;
}

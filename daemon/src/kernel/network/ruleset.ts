import { marks, modes } from "../../core/egress/firewall.js";

/** What the static ruleset depends on; nothing of it changes while squashd runs. */
export interface RulesetFacts {
  /** CIDR that all sandboxes' addresses are of */
  readonly subnet: string;
  /** the address that every sandbox knows as its gateway and resolver */
  readonly gateway: string;
  /** where squashd answers on the gateway's address */
  readonly ports: { readonly dnsUdp: number; readonly dnsTcp: number; readonly http: number; readonly tls: number };
  /** TCP port of the control API; null where it is a unix socket */
  readonly apiPort: number | null;
  /** CIDRs that are not public, which only an entry by address opens */
  readonly specialRanges: readonly string[];
  /** tracked connections that a sandbox may have at once */
  readonly connectionLimit: number;
  /** interfaces that forward what they receive only because squashd made them, which sandboxes alone are to profit by */
  readonly closedInterfaces: readonly string[];
}

/** native/src/link.h has the same number: the group of all links' ends on the host */
const linkGroup = 21_329;
/** native/src/firewall.h has the same number */
const logGroup = 21_329;

export const tableName = "squash";

/** Packets carry these between the decision and the redirection, and nothing afterwards. */
const { permitted, refused } = marks;
/** of DNS queries, somewhat above the limit that the resolver counts by: see clientLimits in egress/dns/client-states.ts */
const queryLimit = "limit rate over 50/second burst 50 packets";
/** the destination is not public; only an entry at least as precise as its special range undoes that */
const special = 3;

/**
 * The whole firewall of squashd as one text for `nft -f`, which replaces an earlier one in a single transaction. It decides on packets of
 * sandboxes' links only, which it knows by their group. Sandboxes come and go as elements of its sets: see core/egress/elements.ts.
 *
 * Entries by address are hash maps, one for each length of prefix, looked up from the least precise to the most precise, so that the last
 * hit decides. Interval sets would do this in one look-up, but cost a copy of everybody's entries at each change.
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

function sets(facts: RulesetFacts): string {
  const maps = prefixes().map(
    (length) => `  map net${length} { type ipv4_addr . ipv4_addr : mark; }
  map port${length} { type ipv4_addr . ipv4_addr . inet_proto . inet_service : mark; }`,
  );
  const elements = facts.specialRanges.join(", ");
  const names = facts.closedInterfaces.map((name) => JSON.stringify(name)).join(", ");
  return `  set links { type ifname . ipv4_addr; }
  set asking { type ipv4_addr; }
  set proxied { type ipv4_addr; }
  map mode { type ipv4_addr : mark; }
  set refused { type ipv4_addr; counter; }
  set rates { type ipv4_addr; limit rate over 1000/second; }
  map learned { type ipv4_addr . ipv4_addr : mark; flags timeout; }
  map learned_port { type ipv4_addr . ipv4_addr . inet_proto . inet_service : mark; flags timeout; }
  set tracked { type ipv4_addr; size 65536; flags dynamic; }
  set noisy { type ipv4_addr; size 65536; flags dynamic, timeout; timeout 1m; }
  set queries { type ipv4_addr; size 65536; flags dynamic, timeout; timeout 1m; }
  set special { type ipv4_addr; flags interval; auto-merge; elements = { ${elements} }; }
  set closed { type ifname;${names === "" ? "" : ` elements = { ${names} };`} }
${maps.join("\n")}`;
}

function decisions(facts: RulesetFacts): string {
  const { gateway, subnet, apiPort, connectionLimit } = facts;
  const api = apiPort === null ? "" : `    tcp dport ${apiPort} goto refuse\n`;
  const nets = levels(facts, (length) => [netLookup(length), portLookup(length)]);
  const ports = levels(facts, (length) => [portLookup(length)]);
  const decided = `meta mark vmap { ${permitted} : goto permit, ${refused} : goto refuse, ${special} : goto refuse }`;
  const lookUpAll = `meta l4proto { tcp, udp } jump by_address
    ${decided}`;
  // to other resolvers only where an entry names that very port, and no more precise one denies the address
  const noResolvers = "meta l4proto { tcp, udp } th dport { 53, 853 } goto resolvers";
  // where no entry has decided: addresses of the host's own, and what routes lead nowhere
  const publicOnly = `fib daddr type != unicast goto refuse
    ip daddr @special goto refuse`;
  const byName = "udp dport 443 goto refuse\n    tcp dport { 80, 443 } accept";
  const otherProtocols = "meta l4proto != { tcp, udp } goto refuse";
  const learnedPort = `meta mark set ip saddr . ip daddr . meta l4proto . th dport map @learned_port
    meta mark vmap { ${permitted} : goto permit, ${refused} : goto refuse }`;
  const named = [noResolvers, lookUpAll, publicOnly, byName, otherProtocols, learnedPort].join("\n    ");
  return `  chain permit {
    meta mark set ${permitted}
    update @noisy { ip saddr limit rate 10/second burst 40 packets } log prefix "allowed" group ${logGroup}
    accept
  }
  chain refuse {
    ip saddr @refused
    update @noisy { ip saddr limit rate 10/second burst 40 packets } log prefix "refused" group ${logGroup}
    meta mark set 0
    meta l4proto tcp reject with tcp reset
    reject with icmpx admin-prohibited
  }
  chain by_address {
${nets}
  }
  chain resolvers {
${ports}
    meta mark != ${permitted} goto refuse
    jump by_address
    meta mark ${permitted} goto permit
    goto refuse
  }
  chain flood {
    ip saddr @refused
    drop
  }
  chain gateway {
    ip saddr @asking udp dport 53 accept
    ip saddr @asking tcp dport 53 update @queries { ip saddr ${queryLimit} } goto refuse
    ip saddr @asking tcp dport 53 accept
    goto refuse
  }
  chain open {
    jump by_address
    ${decided}
    ${publicOnly}
    meta l4proto { tcp, udp } goto permit
    icmp type echo-request goto permit
    goto refuse
  }
  chain open_named {
    ${named}
    goto permit
  }
  chain listed {
    ${noResolvers}
    ${lookUpAll}
    goto refuse
  }
  chain listed_named {
    ${named}
    meta mark set ip saddr . ip daddr map @learned
    meta mark ${permitted} goto permit
    goto refuse
  }
  chain own {
${api}    meta l4proto { tcp, udp } meta mark set ip saddr . ip daddr map @net32
    meta l4proto { tcp, udp } meta mark set ip saddr . ip daddr . meta l4proto . th dport map @port32
    meta mark ${permitted} goto permit
    goto refuse
  }
  chain decide {
    ip daddr ${gateway} udp dport 53 update @queries { ip saddr ${queryLimit} } goto flood
    ct state established,related accept
    ct state invalid drop
    ip daddr ${gateway} goto gateway
    ip daddr ${subnet} goto refuse
    fib daddr type local goto own
    ip saddr @rates goto refuse
    add @tracked { ip saddr ct count over ${connectionLimit} } goto refuse
    meta mark set ip saddr map @mode
    meta mark vmap { ${modes.open} : goto open, ${modes.openNamed} : goto open_named, ${modes.listed} : goto listed, ${modes.listedNamed} : goto listed_named }
    goto refuse
  }`;
}

function hooks({ gateway, subnet, ports }: RulesetFacts): string {
  return `  chain spoof {
    type filter hook prerouting priority raw; policy accept;
    meta iifgroup != ${linkGroup} accept
    iifname . ip saddr @links accept
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
    meta mark ${permitted} accept
    ip saddr @proxied tcp dport 80 dnat ip to ${gateway}:${ports.http}
    ip saddr @proxied tcp dport 443 dnat ip to ${gateway}:${ports.tls}
  }
  chain unmark {
    type filter hook prerouting priority -90; policy accept;
    meta iifgroup ${linkGroup} meta mark set 0
  }
  chain forward {
    type filter hook forward priority filter - 1; policy accept;
    meta oifgroup ${linkGroup} ct state established,related ct direction reply accept
    meta oifgroup ${linkGroup} drop
    iifname @closed drop
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
    ip daddr ${gateway} drop
  }
  chain from_sandboxes {
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr ${subnet} meta oifgroup != ${linkGroup} oifname != "lo" masquerade
  }`;
}

function prefixes(): number[] {
  return Array.from({ length: 33 }, (_, length) => length);
}

/** Look-ups from the least precise to the most precise, with the special ranges between them, each at its own precision. */
function levels({ specialRanges }: RulesetFacts, lookups: (length: number) => readonly string[]): string {
  return prefixes()
    .flatMap((length) => {
      const ranges = specialRanges.filter((range) => range.endsWith(`/${length}`));
      return [
        ...(ranges.length === 0 ? [] : [`ip daddr { ${ranges.join(", ")} } meta mark set ${special}`]),
        ...lookups(length),
      ];
    })
    .map((line) => `    ${line}`)
    .join("\n");
}

/** The destination of a packet, as far as a prefix goes. */
function network(length: number): string {
  const bits = length === 0 ? 0 : (0xffffffff << (32 - length)) >>> 0;
  const mask = [24, 16, 8, 0].map((shift) => (bits >>> shift) & 255).join(".");
  return length === 32 ? "ip daddr" : `(ip daddr & ${mask})`;
}

function netLookup(length: number): string {
  return `meta mark set ip saddr . ${network(length)} map @net${length}`;
}

function portLookup(length: number): string {
  return `meta mark set ip saddr . ${network(length)} . meta l4proto . th dport map @port${length}`;
}

import type { Family } from "./address.js";

/**
 * What is not globally reachable unicast, after IANA's registries of special-purpose addresses. An address here is closed unless
 * an allow entry that is at least as precise as the range matches it. Where ranges lie in one another, the most precise counts:
 * to a longest-prefix match each is a deny entry that loses only to entries of its own precision.
 */
export const specialRanges: Readonly<Record<Family, readonly string[]>> = {
  4: [
    "0.0.0.0/8", // this network
    "0.0.0.0/32", // unspecified, which reaches the host that asks for it
    "10.0.0.0/8", // private
    "100.64.0.0/10", // behind a carrier's NAT
    "127.0.0.0/8", // loopback
    "169.254.0.0/16", // link-local, with the clouds' metadata services
    "172.16.0.0/12", // private
    "192.0.0.0/24", // protocol assignments
    "192.0.2.0/24", // documentation
    "192.88.99.0/24", // 6to4 relays
    "192.168.0.0/16", // private
    "198.18.0.0/15", // benchmarks
    "198.51.100.0/24", // documentation
    "203.0.113.0/24", // documentation
    "224.0.0.0/4", // multicast
    "240.0.0.0/4", // reserved
    "255.255.255.255/32", // broadcast
  ],
  6: [
    // all that is not 2000::/3
    "::/3",
    "4000::/2",
    "8000::/1",
    "::/128", // unspecified
    "::1/128", // loopback
    "::ffff:0:0/96", // IPv4, which has entries of its own
    "64:ff9b::/96", // IPv4 behind a NAT64, private addresses included
    "64:ff9b:1::/48", // the same
    "100::/64", // discarded
    "5f00::/16", // segment routing
    "fc00::/7", // private
    "fe80::/10", // link-local
    "fec0::/10", // site-local, the older private
    "ff00::/8", // multicast
    // within 2000::/3
    "2001::/23", // protocol assignments, with Teredo
    "2001:db8::/32", // documentation
    "2002::/16", // 6to4, with an IPv4 address in it
    "3fff::/20", // documentation
  ],
};

/** What no entry can open, with the reason. Each is a special range, too, or lies in one of which the same is true. */
export const neverOpened: readonly { readonly range: string; readonly problem: string }[] = [
  ...["127.0.0.0/8", "::1/128"].map((range) => ({
    range,
    problem: "which is loopback: to a sandbox that is the sandbox itself, which it reaches without an entry",
  })),
  ...["0.0.0.0", "::"].map((any) => ({
    range: any === "::" ? "::/128" : `${any}/32`,
    problem: `which is the address of no machine: for all public addresses write "${any}/0"`,
  })),
  ...["224.0.0.0/4", "ff00::/8"].map((range) => ({
    range,
    problem: "which is multicast: a sandbox reaches single machines only",
  })),
  { range: "255.255.255.255/32", problem: "which is broadcast: a sandbox reaches single machines only" },
];

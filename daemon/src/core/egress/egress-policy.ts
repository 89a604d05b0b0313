/** The egress policy of one sandbox, as everything that enforces it sees it: nftables by address, DNS and proxy by name. */

export type Protocol = "tcp" | "udp";

/** What decided, for whoever asks why. */
export interface Verdict {
  readonly allowed: boolean;
  /** the entry that decided, as written, with the list it is from, such as `allow *.example.org:443`; or the reason, such as `special address` */
  readonly rule: string;
}

/**
 * One entry by address, in the form that a longest-prefix match works on. No two have the same network, port and protocol.
 * Neither the special ranges are among them, which lose only to entries that are at least as precise, nor the sandboxes' own
 * network, which no entry opens.
 */
export interface AddressRule {
  readonly family: 4 | 6;
  /** the network's first address, in its canonical text */
  readonly network: string;
  readonly prefix: number;
  /** null for every port of both protocols; then `protocol` is null, too */
  readonly port: number | null;
  readonly protocol: Protocol | null;
  readonly allowed: boolean;
  /** as `Verdict.rule` */
  readonly rule: string;
}

/**
 * What the addresses of a resolved name may be used for, apart from TCP 80 and 443, which the proxy decides on: `all` does not
 * mean them, and `ports` never has them.
 */
export interface NameGrant {
  /** every port that `ports` does not name */
  readonly all: boolean;
  /** those that differ from `all` */
  readonly ports: readonly { readonly port: number; readonly protocol: Protocol; readonly allowed: boolean }[];
}

/** Names are compared in lower case, in ASCII, without a final dot; callers may pass any form. */
export interface EgressPolicy {
  /** nothing at all is allowed, not even DNS */
  readonly silent: boolean;
  /** what no entry names is allowed where it is public; otherwise it is denied */
  readonly open: boolean;
  /** some entry is a name, so that TCP 80 and 443 have to go through the proxy, and DNS only through squashd */
  readonly enforcesNames: boolean;
  /** entries by address, the most precise first */
  readonly addressRules: readonly AddressRule[];

  /** Whether DNS may be asked for a name, which it may where any port of it is allowed. */
  lookup(name: string): Verdict & {
    /** whether it was a wildcard that allowed it, so that the name was chosen by the sandbox; never where `open` did */
    readonly wildcard: boolean;
  };
  /** What the addresses that a name resolved to may be used for. */
  grantOf(name: string): NameGrant;
  /** Whether DNS may answer with an address: it is public and not denied as a whole, or an entry that lies in its special range allows it. */
  acceptsAnswer(address: string): Verdict;
  /** Whether a connection by name may be made, before it is known to which address. */
  connectByName(name: string, port: number, protocol: Protocol): Verdict;
  /** Whether a connection by name may go to an address, which was resolved for it: see `acceptsAnswer`, but for one port. */
  connectResolved(address: string, port: number, protocol: Protocol): Verdict;
  /** Whether a connection to a bare address may be made, as nftables decides it: by entries, else by `open`, special ranges apart. */
  connectByAddress(address: string, port: number, protocol: Protocol): Verdict;
}

/** As in the API: null and [] are everything public, ["none"] nothing at all. */
export interface PolicySpec {
  readonly allow: readonly string[] | null;
  readonly deny: readonly string[];
}

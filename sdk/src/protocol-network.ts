/** What sandboxes may reach, and what they did reach; a part of the wire contract in protocol.ts. */

/** Limits of a sandbox's network; an absent field is no limit. */
export interface NetLimits {
  /** towards the sandbox, in 1,000 bits a second, 64–100,000,000 */
  down_kbit?: number;
  /** from the sandbox */
  up_kbit?: number;
  /** new connections a second, 1–100,000 */
  connections_per_s?: number;
}

/** Body of `PUT /v1/sandboxes/:id/network`: everything is replaced. */
export interface NetworkRequest {
  /** as for a creation, but it must be said, so that nothing is opened by forgetting it */
  allow_net: string[] | null;
  deny_net?: string[];
  net_limits?: NetLimits;
}

/** What a sandbox may reach, and what it has done with it since its cell was made. */
export interface NetworkInfo {
  allow_net: string[] | null;
  deny_net: string[];
  net_limits: NetLimits;
  address: string;
  /** null where sandboxes have no IPv6 */
  address6: string | null;
  /** also its name server */
  gateway: string;
  sent_bytes: number;
  sent_packets: number;
  received_bytes: number;
  received_packets: number;
  /** connections that the host tracks at this moment */
  connections_open: number;
  /** connections that the proxy, and packets that the firewall refused */
  connections_refused: number;
  dns_allowed: number;
  dns_refused: number;
  /** queries beyond the rate limit, which were not answered */
  dns_limited: number;
}

/** One decision in the audit log. Not every packet has one: floods are logged in part. */
export interface NetworkDecision {
  time: string;
  sandbox: string;
  /** who decided: the resolver, the proxy for HTTP or TLS, or the firewall */
  kind: "dns" | "http" | "tls" | "connection";
  name: string | null;
  address: string | null;
  port: number | null;
  protocol: "tcp" | "udp" | "icmp" | "other";
  verdict: "allowed" | "refused";
  /** the entry that decided, or the reason */
  rule: string;
}

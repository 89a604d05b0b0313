import { formatAddress, parseAddress } from "../../core/egress/address.js";
import type { EgressPolicy, Verdict } from "../../core/egress/egress-policy.js";
import { parseHostName } from "./host-name.js";

/** Ports of which the firewall leads connections to the proxy, so that names are looked at. */
const namedPorts = new Set([80, 443]);
const nameNeeded: Verdict = { allowed: false, rule: "an address where names are refused" };

/** A name and a port, or an address in place of the name. */
export interface HostAndPort {
  /** a name that was checked, or an address in its canonical text, without brackets */
  readonly name: string;
  readonly port: number;
}

/** Reads what stands before a path. Null for all but a host name or, with `addresses`, an address, with a port or without. */
export function readAuthority(
  authority: string,
  usual: number,
  { addresses }: { readonly addresses: boolean },
): HostAndPort | null {
  const match = /^(\[[^\]]*\]|[^:[\]]*)(?::0*([0-9]{1,5}))?$/.exec(authority);
  const host = match?.[1] ?? "";
  const name = parseHostName(host) ?? (addresses ? parseHostAddress(host) : null);
  const port = match?.[2] === undefined ? usual : Number(match[2]);
  return match === null || name === null || port === 0 || port > 65_535 ? null : { name, port };
}

/** IPv4 in four decimal parts, IPv6 in brackets: what is read in one way only. */
function parseHostAddress(host: string): string | null {
  const bracketed = host.startsWith("[");
  const address = parseAddress(bracketed ? host.slice(1, -1) : host);
  return address === null || bracketed !== (address.family === 6) ? null : formatAddress(address);
}

export function isAddress(name: string): boolean {
  return parseAddress(name) !== null;
}

/** As it stands in a Host field. */
export function writeAuthority({ name, port }: HostAndPort, usual: number): string {
  const host = name.includes(":") ? `[${name}]` : name;
  return port === usual ? host : `${host}:${port}`;
}

/** Whether a connection may be made to a host, by its name or, as the firewall would decide it, by its address. */
export function connectTo(policy: EgressPolicy, { name, port }: HostAndPort): Verdict {
  if (!isAddress(name)) return policy.connectByName(name, port, "tcp");
  // where the firewall asks for a name, this is no way around that
  if (policy.open && policy.enforcesNames && namedPorts.has(port)) return nameNeeded;
  return policy.connectByAddress(name, port, "tcp");
}

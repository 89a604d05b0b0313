import { SquashError } from "@squash/sdk/errors";
import { formatAddress, networkAt, parseAddress, parsePrefix, widthOf } from "./address.js";
import type { Address, Network } from "./address.js";
import type { Protocol } from "./egress-policy.js";
import { endsInNumber, normalName } from "./host-name.js";

export interface PortSpec {
  readonly port: number;
  readonly protocol: Protocol;
}

type Target =
  | { readonly kind: "network"; readonly network: Network }
  /** a wildcard holds for all names below `name`, not for `name` itself */
  | { readonly kind: "name"; readonly name: string; readonly wildcard: boolean };

export interface Entry {
  readonly target: Target;
  /** null for every port of both protocols */
  readonly port: PortSpec | null;
}

/** Where an entry is from, for messages. */
export interface EntrySource {
  readonly list: "allow_net" | "deny_net";
  readonly text: string;
}

/** An entry taken apart: `host/prefix:port`. */
interface Parts {
  readonly host: string;
  readonly prefix: string | null;
  readonly port: PortSpec | null;
}

/** Reads one entry. Throws `invalid_request`, saying what to write instead. */
export function parseEntry(source: EntrySource): Entry {
  const { text } = source;
  if (text === "") refuse(source, "which is empty: write a host name, an address or a network");
  if (text.length > 253) refuse(source, "which is too long: an entry has at most 253 characters");
  if (!/^[A-Za-z0-9.:/*[\]_\u{80}-\u{10ffff}-]*$/u.test(text)) {
    refuse(source, "which has a character that no entry can have: write a host name, an address or a network alone");
  }
  if (text.includes("://")) refuse(source, 'which is a URL: write its host alone, such as "example.org:443"');
  const parts = split(source);
  const address = parseAddress(parts.host);
  if (address !== null)
    return { target: { kind: "network", network: parseTarget(source, parts, address) }, port: parts.port };
  if (text.startsWith("[") || parts.host.includes(":")) {
    refuse(source, 'which is not an IPv6 address: write one as "2001:db8::1", with a port as "[2001:db8::1]:443"');
  }
  return { target: parseName(source, parts), port: parts.port };
}

/** Refuses an entry. `problem` goes on after it: which is …: write …. */
export function refuse({ list, text }: EntrySource, problem: string): never {
  // what it has may be anything, and the message is to be one line: JSON leaves these two ends of lines as they are
  const escaped = (end: string): string => `\\u${end.charCodeAt(0).toString(16)}`;
  const shown = JSON.stringify(text.slice(0, 80)).replace(/[\u2028\u2029]/g, escaped);
  throw new SquashError("invalid_request", `Cannot accept the request: ${list} has ${shown}, ${problem}`, {
    details: { field: list, entry: text.slice(0, 253) },
  });
}

function split(source: EntrySource): Parts {
  const { text } = source;
  // only in brackets can an IPv6 address have a port: 2001:db8::1:443 is an address, too
  const isBareIpv6 = !text.startsWith("[") && text.split(":").length > 2;
  const form = text.startsWith("[")
    ? /^\[([^[\]/]*:[^[\]/]*)\](?:\/([^:]*))?(?::(.*))?$/u
    : isBareIpv6
      ? /^([^/]*)(?:\/([^:]*))?$/u
      : /^([^:/]*)(?:\/([^:]*))?(?::(.*))?$/u;
  const match = form.exec(text);
  if (match === null) {
    refuse(
      source,
      'which has brackets or colons amiss: write "[2001:db8::1]:443", or a network as "[2001:db8::]/32:443"',
    );
  }
  const [, host = "", prefix, port] = match;
  return { host, prefix: prefix ?? null, port: port === undefined ? null : parsePort(source, port) };
}

function parsePort(source: EntrySource, text: string): PortSpec {
  const [, digits, protocol = "tcp"] = /^([1-9][0-9]{0,4})(?:\/(tcp|udp))?$/i.exec(text) ?? [];
  const port = Number(digits);
  if (!(port <= 65_535)) {
    refuse(source, 'whose port is not a number from 1 to 65535: write it as ":443", ":443/tcp" or ":443/udp"');
  }
  return { port, protocol: protocol.toLowerCase() === "udp" ? "udp" : "tcp" };
}

function parseTarget(source: EntrySource, parts: Parts, address: Address): Network {
  const { family, value } = address;
  const width = widthOf(family);
  const prefix = parts.prefix === null ? width : parsePrefix(parts.prefix, family);
  if (prefix === null) refuse(source, `whose prefix length is not a number from 0 to ${width}`);
  const network = networkAt(address, prefix);
  if (family === 6 && prefix >= 96 && network.value >> 32n === 0xffffn) {
    const inner: Network = { family: 4, value: network.value & 0xffff_ffffn, prefix: prefix - 96 };
    refuse(source, `which is IPv4 in IPv6: write "${formatEntry(inner, parts.port)}"`);
  }
  if (network.value !== value) {
    refuse(source, `which has bits set behind its prefix: write "${formatEntry(network, parts.port)}"`);
  }
  return network;
}

function formatEntry(network: Network, port: PortSpec | null): string {
  const address = formatAddress(network);
  const prefix = network.prefix === widthOf(network.family) ? "" : `/${network.prefix}`;
  if (port === null) return address + prefix;
  const host = network.family === 6 ? `[${address}]` : address;
  return `${host}${prefix}:${port.port}${port.protocol === "udp" ? "/udp" : ""}`;
}

function parseName(source: EntrySource, { host, prefix }: Parts): Target {
  if (host === "*" || host === "*.") {
    refuse(source, "which is everything: for everything public leave allow_net out, or write null");
  }
  const wildcard = host.startsWith("*.");
  const rest = wildcard ? host.slice(2) : host;
  if (rest.includes("*")) refuse(source, 'where "*" is not the whole first label: write it as in "*.example.org"');
  const name = normalName(rest);
  if (name === null) {
    refuse(
      source,
      "which is not a host name: write labels of 1 to 63 letters, digits, - or _ between dots, 253 in all",
    );
  }
  if (endsInNumber(name)) {
    refuse(
      source,
      'which programs read as different addresses: write four decimal numbers from 0 to 255, as in "10.0.0.1"',
    );
  }
  if (prefix !== null) {
    refuse(
      source,
      'which has a "/" behind a name: write a network as "192.0.2.0/24", a protocol as "example.org:53/udp"',
    );
  }
  if (name === "none" && !wildcard) {
    refuse(source, 'which is a reserved word: write "none" alone, in allow_net, for a sandbox that reaches nothing');
  }
  return { kind: "name", name, wildcard };
}

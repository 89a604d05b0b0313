import { isIP } from "node:net";

/** Where the HTTP server listens. */
export type ListenAddress = { readonly kind: "tcp"; readonly host: string; readonly port: number } | UnixListen;

/** The same as read from a setting that may leave the port to another one. */
export type ListenSetting = { readonly kind: "tcp"; readonly host: string; readonly port: number | null } | UnixListen;

interface UnixListen {
  readonly kind: "unix";
  readonly path: string;
}

/** sun_path has 108 bytes, the last of them zero. Source: unix(7) */
const maxSocketPath = 107;

/** Reads `address`, `address:port`, `[ipv6]:port` or `unix:/path`. Throws an Error that says what is wanted. */
export function parseListen(text: string): ListenSetting {
  if (text.startsWith("unix:")) return parseUnix(text.slice("unix:".length));
  if (isIP(text) !== 0 || text === "localhost") return { kind: "tcp", host: text, port: null };
  const match = /^(?:\[([^\]]+)\]|([^:[\]]+))(?::(\d{1,5}))?$/.exec(text);
  const host = match?.[1] ?? match?.[2] ?? "";
  const port = match?.[3] === undefined ? null : Number(match[3]);
  if ((isIP(host) === 0 && host !== "localhost") || (port !== null && (port < 1 || port > 65_535))) {
    throw new Error("must be an address, address:port, [ipv6]:port or unix:/path");
  }
  return { kind: "tcp", host, port };
}

function parseUnix(path: string): UnixListen {
  if (!path.startsWith("/") || Buffer.byteLength(path) > maxSocketPath) {
    throw new Error(`must name an absolute path of at most ${maxSocketPath} bytes after unix:`);
  }
  return { kind: "unix", path };
}

/** As clients write it. */
export function urlOf(address: ListenAddress): string {
  if (address.kind === "unix") return `unix:${address.path}`;
  return `http://${isIP(address.host) === 6 ? `[${address.host}]` : address.host}:${address.port}`;
}

import { SquashError } from "./errors.js";

/** Where a daemon listens: a TCP endpoint or a unix socket. */
export type Address = TcpAddress | UnixAddress;

interface TcpAddress {
  readonly kind: "tcp";
  /** the address as it was given, for messages */
  readonly text: string;
  readonly isSecure: boolean;
  /** name or address, IPv6 without brackets */
  readonly host: string;
  readonly port: number;
  /** path in front of every route, "" where there is none; never ends with "/" */
  readonly prefix: string;
}

interface UnixAddress {
  readonly kind: "unix";
  readonly text: string;
  readonly socketPath: string;
}

/** Reads `http://host:port`, `https://host:port` or `unix:/path`. Throws `SquashError` "invalid_request". */
export function parseAddress(text: string): Address {
  if (text.startsWith("unix:")) return parseUnix(text);
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || (url.protocol !== "http:" && url.protocol !== "https:")) {
    throw refusal(text, "it must look like http://host:port, https://host:port or unix:/path");
  }
  if (url.username !== "" || url.password !== "")
    throw refusal("…", "credentials belong into the token, not the address");
  if (url.search !== "" || url.hash !== "") throw refusal(text, "it must end before any ? and #");
  const isSecure = url.protocol === "https:";
  return {
    kind: "tcp",
    text,
    isSecure,
    host: url.hostname.replace(/^\[|\]$/g, ""),
    port: url.port === "" ? (isSecure ? 443 : 80) : Number(url.port),
    prefix: url.pathname.replace(/\/+$/, ""),
  };
}

function parseUnix(text: string): UnixAddress {
  const socketPath = text.slice("unix:".length).replace(/^\/\/\//, "/");
  if (!socketPath.startsWith("/") || socketPath.startsWith("//")) {
    throw refusal(text, "the path of a unix socket must be absolute, as in unix:/run/squash/api.sock");
  }
  return { kind: "unix", text, socketPath };
}

function refusal(text: string, reason: string): SquashError {
  return new SquashError("invalid_request", `Cannot use the address "${text}": ${reason}`);
}

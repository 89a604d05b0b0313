import type { SecretLocation, SecretRule } from "../../core/secrets/secret.js";

/** What decides, of a request, whether a secret may go with it. */
export interface RequestFacts {
  readonly method: string;
  readonly host: string;
  readonly secure: boolean;
  /** path and query */
  readonly target: string;
}

const places: Readonly<Record<SecretLocation, string>> = {
  header: "header fields",
  basic: "the credentials of Authorization: Basic",
  query: "the path or query",
  body: "a body",
  websocket: "the messages of a WebSocket",
};

/** Whether a secret is for a host, which is a name in lower case. */
export function isFor(secret: SecretRule, host: string): boolean {
  return secret.allowedHosts.some((allowed) =>
    allowed.startsWith("*.") ? host.endsWith(allowed.slice(1)) && host.length > allowed.length - 1 : host === allowed,
  );
}

/** Why a secret may not go with a request at all, in words, with what to do; null where it may. */
export function objection(secret: SecretRule, request: RequestFacts): string | null {
  if (!isFor(secret, request.host)) {
    const hosts = secret.allowedHosts.length > 0 ? secret.allowedHosts.join(", ") : "no host";
    return `it is for ${hosts}, not for ${request.host}; add the host to its allowed_hosts, or take the placeholder out`;
  }
  if (!request.secure && !secret.allowPlaintext) {
    return "the request is not encrypted; use https, or set its allow_plaintext";
  }
  if (secret.methods !== null && !secret.methods.includes(request.method)) {
    return `it is for the methods ${secret.methods.join(", ")} only; use one of them, or add this one to its methods`;
  }
  if (secret.allowedPaths !== null && !isBelow(request.target, secret.allowedPaths)) {
    return `it is for the paths ${secret.allowedPaths.join(", ")} only; use one below them, or add this one to its allowed_paths`;
  }
  return null;
}

/** Why a secret may not stand at a place of a request with which it may go. */
export function misplaced(secret: SecretRule, location: SecretLocation): string | null {
  if (secret.locations.includes(location)) return null;
  return `it may not stand in ${places[location]}; add "${location}" to its locations, or take the placeholder out`;
}

/**
 * By the text of the path alone: what servers make of `..`, of `%2e` and of `..;` differs, so a path with one of those is below nothing.
 */
function isBelow(target: string, prefixes: readonly string[]): boolean {
  const path = /^[^?#]*/.exec(target)?.[0] ?? "";
  if (climbs(path)) return false;
  return prefixes.some((prefix) => path === prefix || path.startsWith(prefix.endsWith("/") ? prefix : `${prefix}/`));
}

function climbs(path: string): boolean {
  let text = path;
  // twice, as some servers decode what their front end has decoded
  for (let round = 0; round < 3; round += 1) {
    if (/(?:^|[/\\])\.{1,2}(?:$|[/\\;])/.test(text) || text.includes("\0")) return true;
    text = text.replaceAll(/%([0-9a-f]{2})/gi, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)));
  }
  return false;
}

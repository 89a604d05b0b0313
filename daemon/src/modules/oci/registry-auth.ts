import { readFile } from "node:fs/promises";
import { SquashError } from "@squash/sdk/errors";

/** Who asks a registry. */
export interface Credentials {
  readonly username: string;
  readonly password: string;
}

/** What a registry wants before it answers. */
export type Challenge =
  { readonly scheme: "basic" } | { readonly scheme: "bearer"; readonly realm: string; readonly service: string | null };

/** Reads a WWW-Authenticate header; null for what nobody here can answer. Source: RFC 9110 §11.6.1, distribution "Token Authentication". */
export function parseChallenge(header: string): Challenge | null {
  const [, scheme = "", rest = ""] = /^\s*(basic|bearer)(?:\s+(.{0,4000}))?$/i.exec(header) ?? [];
  if (scheme.toLowerCase() === "basic") return { scheme: "basic" };
  const parameters = new Map<string, string>();
  for (const [, key = "", quoted, bare = ""] of rest.matchAll(/([a-z]+)\s*=\s*(?:"([^"]*)"|([^\s",]+))/gi))
    parameters.set(key.toLowerCase(), quoted ?? bare);
  const realm = parameters.get("realm");
  if (scheme === "" || realm === undefined) return null;
  return { scheme: "bearer", realm, service: parameters.get("service") ?? null };
}

/** The header that shows who asks. */
export function basicAuthorization({ username, password }: Credentials): string {
  return `Basic ${Buffer.from(`${username}:${password}`).toString("base64")}`;
}

/** The address of a token that allows to read one repository. Throws `RangeError` where the realm is no web address. */
export function tokenUrl({ realm, service }: { realm: string; service: string | null }, repository: string): URL {
  if (!URL.canParse(realm)) throw new RangeError("the registry names no address for tokens");
  const url = new URL(realm);
  if (url.username !== "" || url.password !== "")
    throw new RangeError("the registry's address for tokens has a password");
  if (service !== null) url.searchParams.set("service", service);
  // not what the server says it wants: reading this repository is all that is needed
  url.searchParams.set("scope", `repository:${repository}:pull`);
  return url;
}

/** The token in a server's answer. Throws `RangeError`. */
export function readToken(answer: Buffer): string {
  let value: unknown;
  try {
    value = JSON.parse(answer.toString("utf8"));
  } catch {
    throw new RangeError("the answer of the server for tokens is no JSON");
  }
  const { token, access_token: accessToken } = (typeof value === "object" ? (value ?? {}) : {}) as Record<
    string,
    unknown
  >;
  const found = token ?? accessToken;
  if (typeof found !== "string" || !/^[\x21-\x7e]{1,65536}$/.test(found))
    throw new RangeError("the answer of the server for tokens has no token");
  return found;
}

/**
 * Reads the user name and password for a registry out of a file like docker's `config.json`; null when it has none for that one. Throws
 * `invalid_request`, without showing what is in the file.
 */
export async function readCredentials(path: string, registry: string): Promise<Credentials | null> {
  const refused = (why: string): SquashError =>
    new SquashError("invalid_request", `Cannot read passwords of registries from "${path}": ${why}`);
  const text = await readFile(path, "utf8").catch((cause: unknown) => {
    throw refused((cause as Error).message);
  });
  let auths: Readonly<Record<string, unknown>>;
  try {
    auths = (JSON.parse(text) as { auths?: Record<string, unknown> }).auths ?? {};
  } catch {
    throw refused("it is no JSON");
  }
  const names =
    registry === "registry-1.docker.io" ? ["https://index.docker.io/v1/", "docker.io", registry] : [registry];
  const entry = names.map((name) => auths[name]).find((each) => each !== undefined) as { auth?: unknown } | undefined;
  if (entry === undefined) return null;
  const login = typeof entry.auth === "string" ? Buffer.from(entry.auth, "base64").toString("utf8") : "";
  const colon = login.indexOf(":");
  if (colon <= 0) throw refused(`what it has for "${registry}" is no "auth" of user name and password`);
  return { username: login.slice(0, colon), password: login.slice(colon + 1) };
}

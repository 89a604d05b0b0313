/** Where in a request a placeholder may stand; "query" is the path as well, "basic" the decoded credentials of `Authorization: Basic`. */
export type SecretLocation = "header" | "basic" | "query" | "body" | "websocket";

export const secretLocations: readonly SecretLocation[] = ["header", "basic", "query", "body", "websocket"];
export const defaultLocations: readonly SecretLocation[] = ["header", "basic"];

/** A secret without its value: what it is for. */
export interface SecretRule {
  /** also the name of the environment variable: `[A-Za-z_][A-Za-z0-9_]*`, up to 64 */
  readonly name: string;
  /** what sandboxes have in place of the value: 8 to 4,096 printable ASCII characters, no spaces, no quotes, no backslashes */
  readonly placeholder: string;
  /** names in lower case, or `*.` and one, which stands for all below it; empty: it goes nowhere */
  readonly allowedHosts: readonly string[];
  /** prefixes of paths, each up to a `/` or the end; null for all */
  readonly allowedPaths: readonly string[] | null;
  /** in upper case; null for all */
  readonly methods: readonly string[] | null;
  readonly locations: readonly SecretLocation[];
  /** sent in each request to its hosts, in place of what the client sends of that name; the placeholder in its value stands for the secret */
  readonly injectHeader: { readonly name: string; readonly value: string } | null;
  /** whether it may also go without TLS */
  readonly allowPlaintext: boolean;
  /** what becomes of a request with the placeholder that it may not go with: refused, or passed with the placeholder as it is */
  readonly elsewhere: "refuse" | "pass";
  /** that it is an AWS access key id; requests signed with its placeholder are signed anew. Names of the other secrets */
  readonly sigv4: { readonly secretAccessKey: string; readonly sessionToken: string | null } | null;
  /** that its value is a token which squashd gets; null for a value that was given */
  readonly oauth2: OAuth2Grant | null;
}

/** Source: RFC 6749, sections 4.4 and 6 */
export interface OAuth2Grant {
  /** https */
  readonly tokenUrl: string;
  readonly clientId: string;
  readonly clientSecret: string | null;
  /** null for the grant by client credentials */
  readonly refreshToken: string | null;
  readonly scope: string | null;
}

/** A server of tokens has put a refresh token in the place of another one, which no longer works. */
export interface RotatedToken {
  /** name of the secret whose grant it is */
  readonly secret: string;
  readonly before: string;
  readonly after: string;
}

/** With its value, which exists only in squashd's file and memory. */
export interface Secret extends SecretRule {
  /** 4 to 65,536 bytes of UTF-8, since less could not be told from other text in an answer; empty with `oauth2` */
  readonly value: string;
}

/** Shapes of the routes about secrets; a part of the wire contract in protocol.ts. Values of secrets go in, and never out. */

/** Where in a request a placeholder may stand: `query` is the path as well, `basic` the decoded credentials of `Authorization: Basic`. */
export type SecretLocation = "header" | "basic" | "query" | "body" | "websocket";

/** What a secret is for, and how it is used. */
export interface SecretRules {
  /** host names, or `*.example.org` for all below it; `[]`: it goes nowhere */
  allowed_hosts: string[];
  /** prefixes of paths, each up to a `/` or the end; @default null, all */
  allowed_paths?: string[] | null;
  /** @default null, all */
  methods?: string[] | null;
  /** @default ["header", "basic"] */
  locations?: SecretLocation[];
  /** sent in each request to its hosts, in place of what the client sends of that name; `{placeholder}` in its value stands for the secret */
  inject_header?: InjectedHeader | null;
  /** whether it may also go without TLS; @default false */
  allow_plaintext?: boolean;
  /** what becomes of a request with the placeholder that it may not go with: refused, or passed with the placeholder as it is; @default "refuse" */
  elsewhere?: "refuse" | "pass";
  /** that it is an AWS access key id; requests signed with its placeholder are signed anew */
  sigv4?: SecretSigning | null;
}

export interface InjectedHeader {
  name: string;
  value: string;
}

/** Names of other secrets. */
export interface SecretSigning {
  secret_access_key: string;
  session_token?: string | null;
}

/** Body of `PUT /v1/secrets/:name`: everything is replaced, but an absent value or placeholder of a secret that there is stays. */
export interface SecretRequest extends SecretRules {
  /** 4–65,536 bytes of UTF-8; absent with `oauth2` */
  value?: string;
  /** 8–4,096 printable ASCII characters without spaces, quotes and backslashes; @default one in the shape of the value */
  placeholder?: string | null;
  /** that its value is a token which squashd gets and renews */
  oauth2?: OAuth2Request | null;
}

/** By client credentials, or by a refresh token where there is one. */
export interface OAuth2Request {
  /** https */
  token_url: string;
  client_id: string;
  client_secret?: string | null;
  refresh_token?: string | null;
  scope?: string | null;
}

/** One secret, without anything that is secret about it. */
export interface SecretInfo extends Required<SecretRules> {
  name: string;
  /** what sandboxes have in place of the value */
  placeholder: string;
  oauth2: {
    token_url: string;
    client_id: string;
    grant: "client_credentials" | "refresh_token";
    scope: string | null;
  } | null;
  /** requests that it was sent with */
  uses: number;
  /** requests with its placeholder that were refused */
  refusals: number;
  /** null for never */
  last_used: string | null;
}

export interface SecretList {
  /** by name */
  secrets: SecretInfo[];
  /** why the file cannot be used as it is, and what to do; the secrets are those from before. null for nothing */
  problem: string | null;
}

/** One request with a secret's placeholder, in the audit log. */
export interface SecretAuditEntry {
  time: string;
  sandbox: string;
  /** its name */
  secret: string;
  host: string;
  method: string;
  /** of its query only names and placeholders */
  path: string;
  /** where the placeholder stood */
  locations: SecretLocation[];
  /** of the answer; null where there was none */
  status: number | null;
  /** of the body that was sent */
  bytes: number;
  verdict: "allowed" | "refused";
  /** why it was refused */
  reason: string | null;
}

/** What to look for in the audit log; what is absent does not matter. */
export interface SecretAuditQuery {
  sandbox?: string;
  secret?: string;
  verdict?: SecretAuditEntry["verdict"];
  /** the newest, at most 1,000; @default 200 */
  limit?: number;
}

/** Body of `PUT /v1/sandboxes/:id/secrets`. */
export interface GrantRequest {
  /** names; null for all that there are, those included that come later */
  secrets: string[] | null;
}

/** The certificate authority that sandboxes trust, so that the proxy can put secrets into what they encrypt. */
export interface AuthorityInfo {
  /** SHA-256 of the certificate in DER, in hexadecimal digits */
  fingerprint: string;
  certificate_pem: string;
  not_after: string;
}

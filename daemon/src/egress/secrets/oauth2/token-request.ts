import type { OAuth2Grant } from "../../../core/secrets/secret.js";

/** Sends a form to an https URL and gives what came back, of a body at most a few hundred KiB; follows no redirect. */
export type PostForm = (
  url: string,
  form: string,
  options: { readonly headers: Readonly<Record<string, string>>; readonly signal: AbortSignal },
) => Promise<{ readonly status: number; readonly body: string }>;

/** An access token as a server gave it. */
export interface IssuedToken {
  readonly accessToken: string;
  /** for how long it is good; null where the server does not say */
  readonly lifetimeMs: number | null;
  /** in place of the one that was used; null where that one stays */
  readonly refreshToken: string | null;
}

/** Why there is no token. The message holds nothing that a server wrote but its error code. */
export class TokenError extends Error {
  override readonly name = "TokenError";
  /** code of the server, as RFC 6749, section 5.2, has them; null for other failures */
  readonly code: string | null;

  constructor(reason: string, code: string | null = null) {
    super(reason);
    this.code = code;
  }
}

/** Where the client's name and secret stand in a request for a token; servers take one or the other. Source: RFC 6749, section 2.3.1 */
export type ClientAuthentication = "basic" | "form";

/** Asks for a token once. Throws `TokenError`, and what `post` throws. */
export async function requestToken(
  grant: OAuth2Grant,
  authentication: ClientAuthentication,
  call: { readonly post: PostForm; readonly signal: AbortSignal },
): Promise<IssuedToken> {
  const { refreshToken, scope, clientId, clientSecret } = grant;
  const form = new URLSearchParams(
    refreshToken === null
      ? { grant_type: "client_credentials" }
      : { grant_type: "refresh_token", refresh_token: refreshToken },
  );
  if (scope !== null) form.set("scope", scope);
  const headers: Record<string, string> = {
    "Content-Type": "application/x-www-form-urlencoded",
    Accept: "application/json",
  };
  if (clientSecret !== null && authentication === "basic") {
    const credentials = `${formEncoded(clientId)}:${formEncoded(clientSecret)}`;
    headers["Authorization"] = `Basic ${Buffer.from(credentials).toString("base64")}`;
  } else {
    form.set("client_id", clientId);
    if (clientSecret !== null) form.set("client_secret", clientSecret);
  }
  const { status, body } = await call.post(grant.tokenUrl, form.toString(), { headers, signal: call.signal });
  const answer = parsed(body);
  if (status !== 200) throw refused(status, answer);
  return issued(answer);
}

function refused(status: number, answer: Readonly<Record<string, unknown>>): TokenError {
  const code = typeof answer["error"] === "string" && /^[a-z_]{1,64}$/.test(answer["error"]) ? answer["error"] : null;
  return new TokenError(`the token server answered ${status}${code === null ? "" : ` (${code})`}`, code);
}

function issued(answer: Readonly<Record<string, unknown>>): IssuedToken {
  const { access_token: token, token_type: type, expires_in: seconds, refresh_token: next } = answer;
  if (typeof token !== "string" || !/^[\x21-\x7e]{1,65536}$/.test(token)) {
    throw new TokenError("the answer of the token server has no access token in it");
  }
  if (typeof type === "string" && type.toLowerCase() !== "bearer") {
    throw new TokenError("the token server gives tokens of another type than bearer");
  }
  const lifetime = typeof seconds === "number" || typeof seconds === "string" ? Number(seconds) : Number.NaN;
  return {
    accessToken: token,
    lifetimeMs: lifetime > 0 ? lifetime * 1_000 : null,
    refreshToken: typeof next === "string" && next !== "" ? next : null,
  };
}

/** What is no object has no properties. */
function parsed(body: string): Readonly<Record<string, unknown>> {
  try {
    const value: unknown = JSON.parse(body);
    return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
  } catch {
    return {}; // the status says enough
  }
}

function formEncoded(text: string): string {
  return new URLSearchParams({ a: text }).toString().slice(2);
}

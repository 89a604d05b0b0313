import type { OAuth2Grant } from "../../../core/secrets/secret.js";
import { SecretRefusal } from "../secret-refusal.js";
import {
  requestToken,
  TokenError,
  type ClientAuthentication,
  type IssuedToken,
  type PostForm,
} from "./token-request.js";

/** a token is replaced ahead of its end by this share of its life, but no more than that long */
const aheadShare = 0.1;
const maxAheadMs = 60_000;
/** after a failure no other request is made for a while, since sandboxes can ask as often as they like */
const pauseMs = 5_000;
const requestTimeoutMs = 30_000;

export interface TokenSourceOptions {
  readonly post: PostForm;
  /** milliseconds, never going back */
  readonly now: () => number;
  /** told each refresh token that takes the place of the one before, which no longer works then */
  readonly rotated: (before: string, after: string) => void;
  /** told whenever there is another token */
  readonly changed: () => void;
}

interface Token {
  readonly text: string;
  /** when it is to be replaced, and when it is good no more; Infinity where that is not told */
  readonly renewAt: number;
  readonly endsAt: number;
}

/** Gets the access tokens of one secret: one request at a time, ahead of the end of the one before. */
export class TokenSource {
  readonly #secret: string;
  readonly #options: TokenSourceOptions;
  #grant: OAuth2Grant;
  #authentication: ClientAuthentication = "basic";
  #token: Token | null = null;
  #before: string | null = null;
  #pending: Promise<void> | null = null;
  #failed: { readonly at: number; readonly refusal: SecretRefusal } | null = null;
  readonly #end = new AbortController();

  constructor(secret: string, grant: OAuth2Grant, options: TokenSourceOptions) {
    this.#secret = secret;
    this.#grant = grant;
    this.#options = options;
  }

  /** The token to put in; null where there is none that is good. Starts to get another one where it is to end soon. */
  current(): string | null {
    const now = this.#options.now();
    if (this.#token === null || now >= this.#token.endsAt) return null;
    // there is one still, so that a failure matters to nobody before it ends
    if (now >= this.#token.renewAt) void this.fetch().catch(() => undefined);
    return this.#token.text;
  }

  /** Tokens that a server may tell: the last two. */
  known(): string[] {
    return [this.#token?.text, this.#before].filter((text) => typeof text === "string");
  }

  /** Gets another token. Rejects with `SecretRefusal`, right away within 5 s of a failure. */
  fetch(): Promise<void> {
    if (this.#pending !== null) return this.#pending;
    if (this.#failed !== null && this.#options.now() - this.#failed.at < pauseMs)
      return Promise.reject(this.#failed.refusal);
    this.#pending = this.#get().finally(() => {
      this.#pending = null;
    });
    return this.#pending;
  }

  /**
   * After a server refused a request with `rejected`: true where there is another one now. That is so at once for a request that was
   * sent with a token from before.
   */
  async renew(rejected: string): Promise<boolean> {
    const pending = this.#pending;
    if (pending !== null) await pending;
    if (this.#token !== null && this.#token.text !== rejected) return true;
    await this.fetch();
    return this.#token !== null && this.#token.text !== rejected;
  }

  /** Whether it is for the same grant; the refresh token may be one that took the place of another. */
  serves(grant: OAuth2Grant, original: OAuth2Grant): boolean {
    const same = (a: OAuth2Grant, b: OAuth2Grant): boolean => JSON.stringify(a) === JSON.stringify(b);
    return same(grant, original) || same(grant, this.#grant);
  }

  /** Ends a request on its way. */
  close(): void {
    this.#end.abort();
  }

  async #get(): Promise<void> {
    const started = this.#options.now();
    try {
      this.#take(await this.#request(), started);
      this.#failed = null;
    } catch (error) {
      const refusal = new SecretRefusal(this.#secret, "token", `${explained(error)}; ${advice(error)}`);
      this.#failed = { at: this.#options.now(), refusal };
      throw refusal;
    }
  }

  async #request(): Promise<IssuedToken> {
    const signal = AbortSignal.any([this.#end.signal, AbortSignal.timeout(requestTimeoutMs)]);
    const ask = (authentication: ClientAuthentication): Promise<IssuedToken> =>
      requestToken(this.#grant, authentication, { post: this.#options.post, signal });
    try {
      return await ask(this.#authentication);
    } catch (error) {
      const unknown = error instanceof TokenError && error.code === "invalid_client";
      if (!unknown || this.#grant.clientSecret === null || this.#token !== null) throw error;
      const other: ClientAuthentication = this.#authentication === "basic" ? "form" : "basic";
      const issued = await ask(other);
      this.#authentication = other;
      return issued;
    }
  }

  #take({ accessToken, lifetimeMs, refreshToken }: IssuedToken, started: number): void {
    const before = this.#grant.refreshToken;
    if (refreshToken !== null && before !== null && refreshToken !== before) {
      this.#grant = { ...this.#grant, refreshToken };
      this.#options.rotated(before, refreshToken);
    }
    const life = lifetimeMs ?? Infinity;
    if (this.#token !== null && this.#token.text !== accessToken) this.#before = this.#token.text;
    const ahead = Math.min(life * aheadShare, maxAheadMs);
    this.#token = { text: accessToken, renewAt: started + life - ahead, endsAt: started + life };
    this.#options.changed();
  }
}

function explained(error: unknown): string {
  if (error instanceof TokenError) return `there is no access token for it, since ${error.message}`;
  return "there is no access token for it, since the token server cannot be reached";
}

function advice(error: unknown): string {
  const code = error instanceof TokenError ? error.code : null;
  if (code === "invalid_grant") return "its refresh token is worth nothing any more; set the secret with a new one";
  if (code === "invalid_client" || code === "unauthorized_client")
    return "set the secret with the right client id and client secret";
  return "try again later, or look at its token_url";
}

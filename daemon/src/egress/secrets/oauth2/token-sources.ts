import type { OAuth2Grant, RotatedToken, Secret } from "../../../core/secrets/secret.js";
import type { TokenValues } from "../tokens.js";
import type { PostForm } from "./token-request.js";
import { TokenSource } from "./token-source.js";

export interface TokenSourcesOptions {
  readonly post: PostForm;
  /** milliseconds, never going back */
  readonly now: () => number;
  /** told each refresh token that took the place of the one in a secret's grant, to be kept */
  readonly rotated: (token: RotatedToken) => void;
}

/** The access tokens of all secrets that have `oauth2`. */
export class TokenSources implements TokenValues {
  readonly #options: TokenSourcesOptions;
  readonly #sources = new Map<string, { readonly grant: OAuth2Grant; readonly source: TokenSource }>();
  #version = 0;

  constructor(options: TokenSourcesOptions) {
    this.#options = options;
  }

  get version(): number {
    return this.#version;
  }

  /** Takes all secrets as they are now. Keeps the tokens of those whose grant is as it was, also where its refresh token is the last one told. */
  set(secrets: readonly Secret[]): void {
    const grants = new Map(secrets.flatMap(({ name, oauth2 }) => (oauth2 === null ? [] : [[name, oauth2] as const])));
    for (const [name, { grant: original, source }] of this.#sources) {
      const grant = grants.get(name);
      if (grant !== undefined && source.serves(grant, original)) continue;
      source.close();
      this.#sources.delete(name);
    }
    for (const [name, grant] of grants) {
      if (!this.#sources.has(name)) this.#sources.set(name, { grant, source: this.#open(name, grant) });
    }
    this.#version += 1;
  }

  current(secret: string): string | null {
    return this.#sources.get(secret)?.source.current() ?? null;
  }

  known(secret: string): readonly string[] {
    return this.#sources.get(secret)?.source.known() ?? [];
  }

  async fetch(secret: string): Promise<void> {
    await this.#sources.get(secret)?.source.fetch();
  }

  async renew(secret: string, rejected: string): Promise<boolean> {
    return (await this.#sources.get(secret)?.source.renew(rejected)) ?? false;
  }

  /** Ends all requests on their way. */
  close(): void {
    for (const { source } of this.#sources.values()) source.close();
    this.#sources.clear();
  }

  #open(name: string, grant: OAuth2Grant): TokenSource {
    return new TokenSource(name, grant, {
      post: this.#options.post,
      now: this.#options.now,
      rotated: (before, after) => this.#options.rotated({ secret: name, before, after }),
      changed: () => {
        this.#version += 1;
      },
    });
  }
}

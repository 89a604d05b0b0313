/**
 * The access tokens of all secrets with `oauth2`, by the secret's name. One for the whole daemon, since a token is the same for each
 * sandbox; `TokenSources` is the real one.
 */
export interface TokenValues {
  /** The token to put in now; null where there is none, or where it is to end soon and `fetch` should be waited for. */
  current(secret: string): string | null;
  /** Tokens that a server may know and tell: the current one and the last before it. */
  known(secret: string): readonly string[];
  /** Changes whenever `known` changes for some secret. */
  readonly version: number;
  /** Gets a token where there is none. Rejects with `SecretRefusal`, `where` "token". */
  fetch(secret: string): Promise<void>;
  /**
   * After a server refused, with 401, a request that was sent with the token `rejected`: true where there is another one now, so that the
   * request may be sent once more. Rejects with `SecretRefusal`.
   */
  renew(secret: string, rejected: string): Promise<boolean>;
}

export const noTokens: TokenValues = {
  current: () => null,
  known: () => [],
  version: 0,
  fetch: () => Promise.resolve(),
  renew: () => Promise.resolve(false),
};

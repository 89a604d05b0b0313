import type { Secret } from "../../core/secrets/secret.js";
import { usualGrowth, type Growth } from "./content-coding.js";
import { Entry, Grants } from "./grants.js";
import { SecretRequest } from "./request.js";
import { isFor } from "./rules.js";
import { scrubPatterns, type ScrubPattern } from "./scrub.js";
import type { RequestHead, RequestSubstitution } from "./substitution.js";
import { noTokens, type TokenValues } from "./tokens.js";

/** The secrets granted to one sandbox. Made anew when a secret or a grant changes. */
export class SecretSet {
  readonly #entries: readonly Entry[];
  readonly #tokens: TokenValues;
  readonly #growth: Growth;
  #scrub: { readonly version: number; readonly patterns: readonly ScrubPattern[] } | null = null;

  private constructor(secrets: readonly Secret[], tokens: TokenValues, growth: Growth) {
    this.#entries = secrets.toSorted((a, b) => (a.name < b.name ? -1 : 1)).map((secret) => new Entry(secret));
    this.#tokens = tokens;
    this.#growth = growth;
  }

  static compile(secrets: readonly Secret[], tokens: TokenValues = noTokens, growth: Growth = usualGrowth): SecretSet {
    return new SecretSet(secrets, tokens, growth);
  }

  /** how many secrets */
  get size(): number {
    return this.#entries.length;
  }

  /** Whether some secret is for this host (a name in lower case), so that its TLS is to be intercepted. */
  intercepts(host: string): boolean {
    return this.#entries.some(({ secret }) => isFor(secret, host));
  }

  /**
   * What is to be waited for before `request`: access tokens that this request may need. Null where there is nothing to wait for.
   * Rejects with `SecretRefusal`.
   */
  ready(head: RequestHead): Promise<void> | null {
    const absent = this.#entries.filter(
      (entry) => entry.secret.oauth2 !== null && this.#tokens.current(entry.secret.name) === null,
    );
    if (absent.length === 0) return null;
    const grants = new Grants(absent, head, this.#tokens);
    const needed = absent.filter((entry) => grants.allows(entry) && mayNeed(entry, head));
    if (needed.length === 0) return null;
    return Promise.all(needed.map(({ secret }) => this.#tokens.fetch(secret.name))).then(() => undefined);
  }

  /** What is to be put in and what is to be kept out, for one request. Throws `SecretRefusal`, and `UnreadableContent` for a field of several lines. */
  request(head: RequestHead): RequestSubstitution {
    return new SecretRequest(head, new Grants(this.#entries, head, this.#tokens), this.#patterns(), this.#growth);
  }

  #patterns(): readonly ScrubPattern[] {
    const { version } = this.#tokens;
    if (this.#scrub?.version !== version) {
      const kept = this.#entries.flatMap(({ secret }) =>
        (secret.oauth2 === null ? [secret.value] : this.#tokens.known(secret.name)).map((value) => ({
          secret: secret.name,
          value,
          placeholder: secret.placeholder,
        })),
      );
      this.#scrub = { version, patterns: scrubPatterns(kept) };
    }
    return this.#scrub.patterns;
  }
}

/** Bodies and messages are not known yet, and credentials not decoded. */
function mayNeed({ secret }: Entry, head: RequestHead): boolean {
  return (
    secret.injectHeader !== null ||
    (head.hasBody && secret.locations.includes("body")) ||
    (head.webSocket && secret.locations.includes("websocket")) ||
    head.target.includes("%") ||
    head.target.includes(secret.placeholder) ||
    head.headers.some(([, value]) => value.includes(secret.placeholder) || /^basic /i.test(value))
  );
}

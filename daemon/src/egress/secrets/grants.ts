import type { Secret, SecretLocation } from "../../core/secrets/secret.js";
import type { Form } from "./forms.js";
import { Needle, replaceAll, type Pattern } from "./replacer.js";
import { misplaced, objection, type RequestFacts } from "./rules.js";
import { SecretRefusal, type RefusedPlace } from "./secret-refusal.js";
import type { TokenValues } from "./tokens.js";

/** A secret, with what is kept of it from request to request. */
export class Entry {
  readonly secret: Secret;
  readonly placeholder: Needle;

  constructor(secret: Secret) {
    this.secret = secret;
    this.placeholder = new Needle(Buffer.from(secret.placeholder, "latin1"));
  }
}

export const noToken = "there is no access token for it; try again";

/** A secret that was put into a request, and where. */
export interface SecretUse {
  readonly secret: string;
  readonly locations: readonly UsedPlace[];
}
export type UsedPlace = SecretLocation | "signature";

/** What may be put into one request, and what was. */
export class Grants {
  readonly entries: readonly Entry[];
  readonly #objections: ReadonlyMap<Entry, string | null>;
  readonly #tokens: TokenValues;
  /** tokens, as they were when they were first asked for: one request has one token */
  readonly #taken = new Map<string, string>();
  readonly #used = new Map<string, Set<UsedPlace>>();

  constructor(entries: readonly Entry[], request: RequestFacts, tokens: TokenValues) {
    this.entries = entries;
    this.#tokens = tokens;
    this.#objections = new Map(entries.map((entry) => [entry, objection(entry.secret, request)]));
  }

  /** Whether a secret may go with the request, at some place. */
  allows(entry: Entry): boolean {
    return this.#objections.get(entry) === null;
  }

  /** Why a secret may not stand at a place of the request; null where it may. */
  objection(entry: Entry, location: SecretLocation): string | null {
    return this.#objections.get(entry) ?? misplaced(entry.secret, location);
  }

  /** Why a secret may not go with the request, wherever it stands; null where it may. */
  objectionTo(entry: Entry): string | null {
    return this.#objections.get(entry) ?? null;
  }

  /** What is put in; null for a token that there is not. */
  value({ secret }: Entry): string | null {
    if (secret.oauth2 === null) return secret.value;
    const token = this.#taken.get(secret.name) ?? this.#tokens.current(secret.name);
    if (token !== null) this.#taken.set(secret.name, token);
    return token;
  }

  use(name: string, place: UsedPlace): void {
    const places = this.#used.get(name);
    if (places === undefined) this.#used.set(name, new Set([place]));
    else places.add(place);
  }

  uses(): readonly SecretUse[] {
    return [...this.#used].map(([secret, places]) => ({ secret, locations: [...places] }));
  }

  /** Gets other tokens in place of those that were put in. True where there is one. Rejects with `SecretRefusal`. */
  async renewTokens(): Promise<boolean> {
    const used = [...this.#taken].filter(([secret]) => this.#used.has(secret));
    const renewed = await Promise.all(used.map(([secret, token]) => this.#tokens.renew(secret, token)));
    return renewed.includes(true);
  }

  /** What to look for at a place of the request, and what becomes of it. */
  patterns(location: SecretLocation, form: Form): Pattern[] {
    return this.entries.map((entry) => this.#pattern(entry, location, form));
  }

  /**
   * Text of the head with what may stand there put in. Its characters are bytes. Throws `SecretRefusal` where a placeholder may not, or
   * where its value cannot, stand there.
   */
  putInto(text: string, location: SecretLocation, form: Form): string {
    if (
      !this.entries.some(({ secret }) => text.includes(secret.placeholder)) &&
      !(form.mark !== null && text.includes(form.mark))
    )
      return text;
    const patterns = this.patterns(location, form);
    const bytes = Buffer.from(text, "latin1");
    return replaceAll(bytes, patterns, (raw) => form.viewOf(raw, true)).toString("latin1");
  }

  #pattern(entry: Entry, location: SecretLocation, form: Form): Pattern {
    const { placeholder: needle, secret } = entry;
    const refused = (where: RefusedPlace, reason: string): Pattern => ({
      needle,
      put: null,
      found: () => {
        throw new SecretRefusal(secret.name, where, reason);
      },
    });
    const reason = this.objection(entry, location);
    if (reason !== null) return secret.elsewhere === "pass" ? { needle, put: null } : refused(location, reason);
    const value = this.value(entry);
    if (value === null) return refused("token", noToken);
    const unfit = form.objection(value);
    if (unfit !== null) return refused(location, unfit);
    return { needle, put: form.write(value), found: () => this.use(secret.name, location) };
  }
}

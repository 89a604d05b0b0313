import type { PlaneSecrets } from "../core/egress/plane.js";
import type { Authority } from "../core/secrets/authority.js";
import type { Secret } from "../core/secrets/secret.js";

const none: readonly Secret[] = [];

/** The secrets of all sandboxes, as the thread has them. */
export class SecretShelf {
  #secrets: ReadonlyMap<string, Secret> = new Map();
  #authorities: ReadonlyMap<string, Authority> = new Map();
  /** by names */
  #granted = new Map<string, readonly Secret[]>();

  replace({ secrets, authorities }: PlaneSecrets): void {
    this.#secrets = new Map(secrets.map((secret) => [secret.name, secret]));
    // the same one for the same key, since certificates that it has issued are kept with it
    const known = this.#authorities;
    this.#authorities = new Map(
      authorities.map((authority) => {
        const old = known.get(authority.fingerprint);
        return [authority.fingerprint, old?.keyPem === authority.keyPem ? old : authority];
      }),
    );
    const before = this.#granted;
    this.#granted = new Map();
    // what has not changed stays the same array, so that nobody's connections are cut for another one's secret
    for (const [key, old] of before) {
      const found = this.#find(key);
      this.#granted.set(key, isSame(old, found) ? old : found);
    }
  }

  /** Those of `names` that there are: one array for the same names until one of them changes. */
  granted(names: readonly string[]): readonly Secret[] {
    if (names.length === 0) return none;
    const key = names.join(" ");
    const known = this.#granted.get(key);
    if (known !== undefined) return known;
    const found = this.#find(key);
    this.#granted.set(key, found);
    return found;
  }

  /** Lets go of lists that nobody has any more. */
  keepOnly(inUse: Iterable<readonly string[]>): void {
    const keys = new Set(Array.from(inUse, (names) => names.join(" ")));
    for (const key of this.#granted.keys()) if (!keys.has(key)) this.#granted.delete(key);
  }

  authority(fingerprint: string | null): Authority | null {
    return fingerprint === null ? null : (this.#authorities.get(fingerprint) ?? null);
  }

  #find(key: string): readonly Secret[] {
    return key.split(" ").flatMap((name) => this.#secrets.get(name) ?? []);
  }
}

function isSame(a: readonly Secret[], b: readonly Secret[]): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}

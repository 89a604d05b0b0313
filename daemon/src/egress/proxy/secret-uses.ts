import type { Secret } from "../../core/secrets/secret.js";
import type { EgressClient, NoteUse } from "../egress-client.js";
import type { SecretSet } from "../secrets/secret-set.js";

export type CompileSecrets = (secrets: readonly Secret[]) => SecretSet;

/** What the engine makes of sandboxes' secrets, once for all that have the same, and where their uses are told. */
export class SecretUses {
  readonly note: NoteUse;
  readonly #compile: CompileSecrets;
  readonly #sets = new WeakMap<readonly Secret[], SecretSet>();

  constructor(note: NoteUse, compile: CompileSecrets) {
    this.note = note;
    this.#compile = compile;
  }

  /** Null where a sandbox has none. */
  of({ secrets }: EgressClient): SecretSet | null {
    if (secrets.length === 0) return null;
    let set = this.#sets.get(secrets);
    if (set === undefined) this.#sets.set(secrets, (set = this.#compile(secrets)));
    return set;
  }

  /** Whether TLS to a host is to be read for a sandbox: it has a secret for it, and trusts an authority of ours. */
  intercepts(client: EgressClient, host: string): boolean {
    return client.authority !== null && (this.of(client)?.intercepts(host) ?? false);
  }
}

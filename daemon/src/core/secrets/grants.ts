import type { RootTrust } from "./root-trust.js";

/** What a sandbox has of the secrets. */
export interface SecretAccess {
  /** names as asked for; null for all that there are, those included that come later */
  readonly secrets: readonly string[] | null;
  /** fingerprint of the certificate authority that its root trusts; null for none */
  readonly ca: string | null;
}

export const noSecrets: SecretAccess = { secrets: [], ca: null };

/** What a record says; one of an earlier squashd says nothing, which is all of them. */
export function secretAccess({
  secrets = null,
  trust,
}: {
  readonly secrets?: readonly string[] | null;
  readonly trust?: RootTrust | undefined;
}): SecretAccess {
  return { secrets, ca: trust?.ca ?? null };
}

/** The names among those that there are, sorted. One that was removed counts again when it is back. */
export function grantedNames({ secrets }: SecretAccess, known: ReadonlySet<string>): string[] {
  return (secrets === null ? [...known] : [...new Set(secrets)].filter((name) => known.has(name))).toSorted();
}

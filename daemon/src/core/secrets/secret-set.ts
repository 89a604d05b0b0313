import { SquashError } from "@squash/sdk/errors";
import { placeholderMark, secretBounds, type WrittenSecret } from "./parse-secret.js";
import { makePlaceholder } from "./placeholder.js";
import type { Secret } from "./secret.js";
import { secretRefusal } from "./secret-fields.js";

/**
 * Secrets as they are used, by name: each has a placeholder, and they go together. `made` says whether any placeholder had to be made.
 * Throws `invalid_request` that names the secret and the field.
 */
export function completeSecrets(written: readonly WrittenSecret[]): { secrets: Secret[]; made: boolean } {
  const { count } = secretBounds;
  if (written.length > count)
    throw new SquashError("invalid_request", `Cannot use the secrets: there are more than ${count}`);
  const placeholders = new Map<string, string>();
  for (const { name, placeholder } of written) if (placeholder !== null) placeholders.set(name, placeholder);
  checkPlaceholders(written, placeholders);
  for (const { name, placeholder, value } of written) {
    if (placeholder !== null) continue;
    const others = [...placeholders.values()];
    placeholders.set(
      name,
      makePlaceholder(
        value === "" ? "x".repeat(40) : value,
        (made) =>
          !others.some((other) => other.includes(made) || made.includes(other)) &&
          !written.some((secret) => contains(made, secret.value) || contains(secret.value, made)),
      ),
    );
  }
  const secrets = written.map((secret) => complete(secret, placeholders.get(secret.name) ?? ""));
  checkReferences(secrets);
  return {
    secrets: secrets.toSorted((a, b) => (a.name < b.name ? -1 : 1)),
    made: written.some(({ placeholder }) => placeholder === null),
  };
}

function checkPlaceholders(written: readonly WrittenSecret[], placeholders: ReadonlyMap<string, string>): void {
  // what parts them is in no placeholder
  const joined = ` ${[...placeholders.values()].join(" ")} `;
  let from = 1;
  for (const [name, placeholder] of placeholders) {
    const isElsewhere = joined.indexOf(placeholder) !== from || joined.includes(placeholder, from + 1);
    if (isElsewhere) {
      const other = [...placeholders].find(([each, text]) => each !== name && text.includes(placeholder))?.[0];
      throw secretRefusal(
        name,
        "placeholder",
        other === undefined
          ? "contains itself twice"
          : `is that of "${other}" or in it; which one is meant could not be told`,
      );
    }
    from += placeholder.length + 1;
  }
  for (const { name, value } of written) {
    if (value === "") continue;
    if (joined.includes(value)) {
      const holder = [...placeholders].find(([, text]) => text.includes(value))?.[0] ?? name;
      throw secretRefusal(holder, "placeholder", `contains the value of "${name}", which sandboxes would see`);
    }
    const own = placeholders.get(name);
    if (own !== undefined && value.includes(own)) throw secretRefusal(name, "value", "contains its placeholder");
  }
}

function complete(secret: WrittenSecret, placeholder: string): Secret {
  const { name, injectHeader } = secret;
  const value = injectHeader?.value.replaceAll(placeholderMark, placeholder);
  if (value !== undefined && !value.includes(placeholder))
    throw secretRefusal(
      name,
      "inject_header.value",
      `must contain the placeholder, or ${placeholderMark} in its place; else nothing secret would be sent`,
    );
  return {
    ...secret,
    placeholder,
    injectHeader: injectHeader === null || value === undefined ? null : { name: injectHeader.name, value },
  };
}

function checkReferences(secrets: readonly Secret[]): void {
  const byName = new Map(secrets.map((secret) => [secret.name, secret]));
  for (const { name, sigv4 } of secrets) {
    const references = [
      ["sigv4.secret_access_key", sigv4?.secretAccessKey ?? null],
      ["sigv4.session_token", sigv4?.sessionToken ?? null],
    ] as const;
    for (const [field, reference] of references) {
      if (reference === null) continue;
      if (reference === name) throw secretRefusal(name, field, "must be the name of another secret");
      const other = byName.get(reference);
      if (other === undefined)
        throw secretRefusal(name, field, "must be the name of a secret, and there is none of that name");
      if (other.oauth2 !== null) throw secretRefusal(name, field, "must be a secret with a value of its own");
    }
  }
}

function contains(text: string, part: string): boolean {
  return part !== "" && text.includes(part);
}

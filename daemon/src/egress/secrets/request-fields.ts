import { controls, field } from "./forms.js";
import { noToken, type Entry, type Grants } from "./grants.js";
import { SecretRefusal, UnreadableContent } from "./secret-refusal.js";
import type { Fields } from "./substitution.js";

/** bytes of all fields together, with the values in them: what common servers take, several times over */
const maxBytes = 256 * 1024;
const basicField = /^(basic +)([A-Za-z0-9+/_-]+={0,2})\s*$/i;

/** Credentials of `Authorization: Basic`, as the client sent them and as the server gets them: each base64. */
export interface BasicPair {
  readonly sent: string;
  readonly real: string;
}

export interface PutFields {
  readonly fields: Fields;
  readonly basics: readonly BasicPair[];
}

/**
 * Fields with the values put in; those that a secret adds come last. Throws `SecretRefusal`, and `UnreadableContent` for a field of more
 * than one line.
 */
export function putIntoFields(
  fields: readonly (readonly [string, string])[],
  grants: Grants,
  injects: readonly Entry[],
): PutFields {
  const replaced = new Set(injects.map(({ secret }) => secret.injectHeader?.name.toLowerCase()));
  const output: Fields = [];
  const basics: BasicPair[] = [];
  let bytes = 0;
  for (const [name, value] of fields) {
    if (replaced.has(name.toLowerCase())) continue;
    if (controls.test(value) || controls.test(name))
      throw new UnreadableContent("client", "a field of more than one line");
    const put = putIntoField(name, value, grants, basics);
    bytes += name.length + put.length;
    if (bytes > maxBytes)
      throw new UnreadableContent("client", `fields of more than ${maxBytes} bytes, with the values put in`);
    output.push([name, put]);
  }
  for (const entry of injects) {
    const added = injected(entry, grants, basics);
    if (added !== null) output.push(added);
  }
  return { fields: output, basics };
}

/** Fields after the body. */
export function putIntoTrailers(fields: readonly (readonly [string, string])[], grants: Grants): Fields {
  return putIntoFields(fields, grants, []).fields;
}

function putIntoField(name: string, value: string, grants: Grants, basics: BasicPair[]): string {
  if (name.toLowerCase() === "authorization") {
    const put = putIntoBasic(value, basics, (credentials) => grants.putInto(credentials, "basic", field));
    if (put !== null) return put;
  }
  return grants.putInto(value, "header", field);
}

/** A field that a secret adds: only its own placeholder stands for something in it. */
function injected(entry: Entry, grants: Grants, basics: BasicPair[]): [string, string] | null {
  const { injectHeader: added, name: secret, placeholder } = entry.secret;
  if (added === null) return null;
  const value = grants.value(entry);
  if (value === null) throw new SecretRefusal(secret, "token", noToken);
  const unfit = field.objection(value);
  if (unfit !== null) throw new SecretRefusal(secret, "header", unfit);
  grants.use(secret, "header");
  const bytes = field.write(value).toString("latin1");
  const put = (text: string): string => text.replaceAll(placeholder, () => bytes);
  return [added.name, putIntoBasic(added.value, basics, put) ?? put(added.value)];
}

/** Null for a field that is no such credentials, and where nothing was put in. */
function putIntoBasic(value: string, basics: BasicPair[], put: (credentials: string) => string): string | null {
  const [, scheme = "", sent = ""] = basicField.exec(value) ?? [];
  const credentials = Buffer.from(sent, "base64").toString("latin1");
  const result = put(credentials);
  if (result === credentials) return null;
  const real = Buffer.from(result, "latin1").toString("base64");
  basics.push({ sent, real });
  return `${scheme}${real}`;
}

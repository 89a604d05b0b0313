import type { Fields } from "./substitution.js";

type ReadonlyFields = readonly (readonly [string, string])[];

/** The values of one field, in order; the name is in lower case. */
export function fieldValues(fields: ReadonlyFields, name: string): string[] {
  return fields.filter(([field]) => field.toLowerCase() === name).map(([, value]) => value);
}

/** With one field in place of all of that name, where the first of them stood or at the end; null takes them away. */
export function withField(fields: ReadonlyFields, name: string, value: string | null): Fields {
  const output: Fields = [];
  let written = value === null;
  for (const [field, old] of fields) {
    if (field.toLowerCase() !== name.toLowerCase()) output.push([field, old]);
    else if (!written && value !== null) {
      output.push([field, value]);
      written = true;
    }
  }
  if (!written && value !== null) output.push([name, value]);
  return output;
}

import type { OutgoingHttpHeaders } from "node:http2";
import { pairs, passedOn } from "./http-fields.js";
import type { Fields, ReadFields } from "./message.js";

/** The fields of a message of HTTP/2, without the pseudo-fields. */
export function fieldsOf(raw: readonly string[]): Fields {
  return passedOn(raw).filter(([name]) => !name.startsWith(":"));
}

/** A pseudo-field; null where there is none, or more than one. */
export function pseudo(raw: readonly string[], name: string): string | null {
  const values = pairs(raw).filter(([field]) => field === name);
  return values.length === 1 ? (values[0]?.[1] ?? null) : null;
}

/** In the form that Node writes: names in lower case, and the values of one name together. */
export function headersOf(fields: ReadFields): OutgoingHttpHeaders {
  const headers: Record<string, string | string[]> = Object.create(null) as Record<string, string | string[]>;
  for (const [field, value] of fields) {
    const name = field.toLowerCase();
    const known = headers[name];
    if (known === undefined) headers[name] = value;
    else if (Array.isArray(known)) known.push(value);
    else headers[name] = [known, value];
  }
  return headers;
}

import { jsonView, percentView, plainView, type View } from "./views.js";

/** How text is written at a place: which escapes stand in it, and how a value is written there. */
export interface Form {
  /** begins each escape; null where there are none */
  readonly mark: string | null;
  viewOf(raw: Buffer, last: boolean): View;
  write(value: string): Buffer;
  /** Why a value cannot stand there, in words; null where it can. */
  objection(value: string): string | null;
}

/** No field may have them; a line break would begin another one. Source: RFC 9110, section 5.5 */

export const controls = /[\0-\x08\n-\x1f\x7f]/;

const anything = (): null => null;

/** Bytes as they are, in UTF-8. */
export const plain: Form = { mark: null, viewOf: plainView, write: (value) => Buffer.from(value), objection: anything };

/** The value of a field, or credentials within it. */
export const field: Form = {
  ...plain,
  objection: (value) =>
    controls.test(value) ? "its value has a line break or another control character, which no field can have" : null,
};

/** Within a string of JSON. */
export const json: Form = {
  mark: "\\",
  viewOf: jsonView,
  write: (value) => Buffer.from(JSON.stringify(value).slice(1, -1)),
  objection: anything,
};

/** A name or value of `application/x-www-form-urlencoded`, or of a query. */
export const form: Form = {
  mark: "%",
  viewOf: percentView,
  write: (value) => percentEncoded(value, /[A-Za-z0-9\-._~]/),
  objection: anything,
};

/** Within a segment of a path; what may stand there stays as it is. Source: RFC 3986, section 3.3 */
export const path: Form = {
  ...form,
  write: (value) => percentEncoded(value, /[A-Za-z0-9\-._~!$&'()*+,;=:@]/),
};

/** As JavaScript's `encodeURIComponent` writes it. */
export const component: Form = { ...form, write: (value) => percentEncoded(value, /[A-Za-z0-9\-._~!'()*]/) };

/** The form of a body of a media type. */
export function formOf(contentType: string): Form {
  const type = /^\s*([^;\s]*)/.exec(contentType)?.[1]?.toLowerCase() ?? "";
  if (type === "application/x-www-form-urlencoded") return form;
  return /^(?:application|text)\/(?:json|x-ndjson|ndjson|jsonl|x-amz-json-1\.[01])$|\+json$/.test(type) ? json : plain;
}

function percentEncoded(value: string, unreserved: RegExp): Buffer {
  const bytes = [...Buffer.from(value)].map((byte) => {
    const letter = String.fromCharCode(byte);
    return byte < 0x80 && unreserved.test(letter) ? letter : `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;
  });
  return Buffer.from(bytes.join(""), "latin1");
}

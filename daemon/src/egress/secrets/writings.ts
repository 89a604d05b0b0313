import { component, form, json, path, plain } from "./forms.js";

/** Shorter values are in all texts by chance. */
const minBytes = 4;

/**
 * The ways in which servers write a text into what they answer: as it is, within JSON (also with `/` escaped, with all of HTML's
 * characters escaped, and in ASCII alone), percent-encoded, and within HTML.
 */
const writers: readonly ((text: string) => Buffer)[] = [
  (text) => plain.write(text),
  (text) => json.write(text),
  (text) => Buffer.from(jsonText(text).replaceAll("/", "\\/")),
  (text) => Buffer.from(jsonText(text).replaceAll(/[<>&]/g, escaped)),
  (text) => Buffer.from(jsonText(text).replaceAll(/[<>&']/g, escaped)),
  (text) => Buffer.from(jsonText(text).replaceAll(/[^\0-\x7f]/g, escaped)),
  (text) =>
    Buffer.from(
      jsonText(text)
        .replaceAll("/", "\\/")
        .replaceAll(/[^\0-\x7f]/g, escaped),
    ),
  (text) => form.write(text),
  (text) => lower(form.write(text)),
  (text) => Buffer.from(form.write(text).toString("latin1").replaceAll("%20", "+")),
  (text) => path.write(text),
  (text) => lower(path.write(text)),
  (text) => component.write(text),
  (text) => lower(component.write(text)),
  (text) => html(text, { "&": "&amp;", "<": "&lt;", ">": "&gt;" }),
  (text) => html(text, { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" }),
  (text) => html(text, { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" }),
  (text) => html(text, { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#x27;" }),
  (text) => html(text, { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&#34;", "'": "&#39;" }),
];

/** The ways a value may stand in an answer, each with the placeholder in the same way; none twice. */
export function writingsOf(value: string, placeholder: string): { readonly find: Buffer; readonly put: Buffer }[] {
  if (Buffer.byteLength(value) < minBytes) return [];
  const found = new Map<string, { find: Buffer; put: Buffer }>();
  for (const write of writers) {
    const find = write(value);
    const key = find.toString("latin1");
    if (!found.has(key)) found.set(key, { find, put: write(placeholder) });
  }
  return [...found.values()];
}

function jsonText(text: string): string {
  return JSON.stringify(text).slice(1, -1);
}

function escaped(character: string): string {
  return `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;
}

function lower(bytes: Buffer): Buffer {
  return Buffer.from(
    bytes.toString("latin1").replaceAll(/%[0-9A-F]{2}/g, (code) => code.toLowerCase()),
    "latin1",
  );
}

function html(text: string, entities: Readonly<Record<string, string>>): Buffer {
  return Buffer.from(text.replaceAll(/[&<>"']/g, (character) => entities[character] ?? character));
}

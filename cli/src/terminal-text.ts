const whitespace = /[\t\n\v\f\r\u0085\u2028\u2029]+/g;

/** C0 and C1 control characters and DEL, which can command a terminal, and marks that reorder or hide the text around them. */
const unprintable = /[\u0000-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]/g;

/** Text that others chose, as one harmless line: line breaks and tabs become a space, other control characters go. */
export function printableLine(text: string): string {
  return text.replace(whitespace, " ").replace(unprintable, "");
}

/** The same for text of several lines: line feeds and tabs stay. */
export function printableText(text: string): string {
  return text.replaceAll("\r\n", "\n").replace(unprintable, (character) => {
    return character === "\n" || character === "\t" ? character : "";
  });
}

/** The value as JSON for a terminal or a program: what `printableText` removes is escaped, so that the meaning stays the same. */
export function printableJson(value: unknown): string {
  return JSON.stringify(value, null, 2).replace(unprintable, (character) => {
    return character === "\n" ? character : `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;
  });
}

const entities = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" } as const;
const characters: Readonly<Record<string, string>> = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'" };

/** What an element holds: text, elements by their names, or several of one name. */
export type Content = string | number | boolean | { readonly [name: string]: Content | readonly Content[] };

/** A document as S3 answers it. */
export function xmlDocument(name: string, content: Content): string {
  const root = `<${name} xmlns="http://s3.amazonaws.com/doc/2006-03-01/">`;
  return `<?xml version="1.0" encoding="UTF-8"?>\n${root}${inside(content)}</${name}>`;
}

function inside(content: Content): string {
  if (typeof content !== "object") return escape(String(content));
  return Object.entries(content)
    .flatMap(([name, value]) =>
      (Array.isArray(value) ? (value as readonly Content[]) : [value as Content]).map(
        (each) => `<${name}>${inside(each)}</${name}>`,
      ),
    )
    .join("");
}

function escape(text: string): string {
  return text
    .replaceAll(/[&<>"]/g, (each) => entities[each as keyof typeof entities])
    .replaceAll(/[\0-\x1f]/g, (each) => `&#x${each.charCodeAt(0).toString(16)};`);
}

/** What the elements of that name hold, wherever they are; good enough for what clients of S3 send, in which none holds one of its own name. */
export function elements(text: string, name: string): string[] {
  return [...text.matchAll(new RegExp(`<${name}(?: [^>]*)?>([^]*?)</${name}>`, "g"))].map((match) => match[1] ?? "");
}

/** The text of the first element of that name, or undefined where there is none. */
export function elementText(text: string, name: string): string | undefined {
  return elements(text, name)[0]?.replaceAll(/&(#x?)?(\w+);/g, (_whole, kind: string | undefined, body: string) =>
    kind === undefined ? (characters[body] ?? "") : String.fromCodePoint(parseInt(body, kind === "#" ? 10 : 16)),
  );
}

import type { Pattern } from "../replacer.js";

const units = {
  plain: /[^]/g,
  json: /\\u[0-9a-fA-F]{4}|\\[^]|[^]/g,
  percent: /%[0-9a-fA-F]{2}|[^]/g,
};
const letters: Readonly<Record<string, string>> = {
  '"': '"',
  "\\": "\\",
  "/": "/",
  b: "\b",
  f: "\f",
  n: "\n",
  r: "\r",
  t: "\t",
};

/** The whole taken apart into characters and escapes, and patterns looked for one place after the other: slow, and plainly right. */
export function naive(whole: Buffer, patterns: readonly Pattern[], kind: keyof typeof units): Buffer {
  const raw = whole.toString("latin1").match(units[kind]) ?? [];
  const read = raw.map((unit) => {
    const code = /^(?:%|\\u)([0-9a-fA-F]+)$/.exec(unit)?.[1];
    if (unit.length === 1) return unit;
    if (kind === "percent") return String.fromCharCode(Number.parseInt(code!, 16));
    if (unit.length === 6)
      return Number.parseInt(code!, 16) < 128 ? String.fromCharCode(Number.parseInt(code!, 16)) : "\xff";
    return letters[unit[1]!] ?? "\xff";
  });
  const output: string[] = [];
  for (let at = 0; at < raw.length;) {
    const rest = read.slice(at).join("");
    const [first] = patterns
      .filter(({ needle }) => rest.startsWith(needle.bytes.toString("latin1")))
      .toSorted((a, b) => b.needle.bytes.length - a.needle.bytes.length);
    const length = first?.needle.bytes.length ?? 1;
    output.push(first?.put?.toString("latin1") ?? raw.slice(at, at + length).join(""));
    at += length;
  }
  return Buffer.from(output.join(""), "latin1");
}

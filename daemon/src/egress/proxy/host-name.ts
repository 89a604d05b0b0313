const characters = /^[A-Za-z0-9._-]+$/;
const label = /^[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?$/;
/** what a resolver may take for an IPv4 address, such as 127.1 or 0x7f000001. Source: WHATWG URL, "ends in a number" */
const number = /^(?:\d+|0x[0-9a-f]*)$/;

/**
 * A host name in lower case without a final dot; null for all that is not plainly one: addresses in any notation, characters outside
 * ASCII, empty or too long labels. Underscores are taken, since such names are in use.
 */
export function parseHostName(text: string): string | null {
  if (!characters.test(text)) return null; // first, as characters outside ASCII have lower cases in it
  const lower = text.toLowerCase();
  const name = lower.endsWith(".") ? lower.slice(0, -1) : lower;
  const labels = name.split(".");
  if (name.length > 253 || !labels.every((part) => label.test(part)) || number.test(labels.at(-1) ?? "")) return null;
  return name;
}

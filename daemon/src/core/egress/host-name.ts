const asciiName = /^[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*$/;

/** A name in lower case, in ASCII, without a final dot. Null for what is not labels of 1–63 letters, digits, `-` and `_`, 253 in all. */
export function normalName(text: string): string | null {
  // with a final dot
  if (text.length > 254) return null;
  const ascii = /[^\0-\x7f]/.test(text) ? toAscii(text) : text.toLowerCase();
  if (ascii === null) return null;
  const name = ascii.endsWith(".") ? ascii.slice(0, -1) : ascii;
  return name.length <= 253 && asciiName.test(name) ? name : null;
}

/** As `normalName`, and null for what some programs read as an address, too. */
export function hostName(text: string): string | null {
  const name = normalName(text);
  return name === null || endsInNumber(name) ? null : name;
}

/** Whether URLs and resolvers take it for an IPv4 address, good or bad: no top-level domain is a number. */
export function endsInNumber(name: string): boolean {
  return /(?:^|\.)(?:[0-9]+|0x[0-9a-f]*)$/.test(name);
}

/** As browsers do it (IDNA). Null for what has no such form. */
function toAscii(text: string): string | null {
  // nothing that would end the host in a URL
  if (!/^[A-Za-z0-9._\u{80}-\u{10ffff}-]+$/u.test(text)) return null;
  return URL.canParse(`http://${text}/`) ? new URL(`http://${text}/`).hostname : null;
}

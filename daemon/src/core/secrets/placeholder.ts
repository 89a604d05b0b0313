/** Beginnings that say whose credential it is and nothing of which one; clients check them. The longest one counts. */
const knownPrefixes = [
  ...[
    "sk-",
    "sk-ant-",
    "sk-ant-api03-",
    "sk-ant-oat01-",
    "sk-proj-",
    "sk-svcacct-",
    "sk-or-v1-",
    "gsk_",
    "xai-",
    "pplx-",
  ],
  ...["sk_live_", "sk_test_", "rk_live_", "rk_test_", "pk_live_", "pk_test_", "whsec_"],
  ...["ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "gldt-", "glrt-", "ATBB"],
  ...["xoxb-", "xoxp-", "xoxa-", "xoxe-", "xapp-", "SG.", "key-", "lin_api_", "ntn_", "secret_", "figd_"],
  ...["AKIA", "ASIA", "AIza", "ya29.", "GOCSPX-", "dop_v1_", "shpat_", "tskey-auth-", "tskey-api-", "glsa_", "hvs."],
  ...["npm_", "pypi-", "rubygems_", "dckr_pat_", "hf_", "r8_", "nvapi-", "eyJ"],
].toSorted((a, b) => b.length - a.length);

const lower = "abcdefghijklmnopqrstuvwxyz";
const upper = lower.toUpperCase();
const digits = "0123456789";
const all = lower + upper + digits;

const maxLength = 4_096;
const minLength = 8;
/** below this it could turn up by chance in what a program sends */
const minBits = 64;
/** so many characters of a value in one piece would tell something of it */
const partLength = 8;
const attempts = 64;

/**
 * A worthless stand-in in the shape of a value: its known prefix, its length, its punctuation, and letters and digits of the kinds that it has.
 * Longer than the value where that is too short to be told from other text. `isFree` says whether one may be used beside others. Throws an
 * Error where none is found, which chance does not bring about.
 */
export function makePlaceholder(value: string, isFree: (placeholder: string) => boolean): string {
  const prefix = prefixOf(value);
  const rest = value.slice(prefix.length);
  const plans: (() => string)[] = [shaped(prefix, rest), () => prefix + random(all, restLength(prefix, rest))];
  for (const plan of plans)
    for (let attempt = 0; attempt < attempts; attempt++) {
      const placeholder = plan();
      if (!hasPartOf(placeholder, rest) && isFree(placeholder)) return placeholder;
    }
  throw new Error("no placeholder was found that has nothing of the value");
}

/** The beginning that everybody knows; "" for none, or where nothing follows it. */
export function prefixOf(value: string): string {
  return knownPrefixes.find((prefix) => value.startsWith(prefix) && value.length >= prefix.length + minLength) ?? "";
}

/** Whether a text has eight characters of another in one piece, or all of them where they are fewer. */
export function hasPartOf(text: string, other: string): boolean {
  const length = Math.min(partLength, other.length);
  if (length === 0) return false;
  const parts = new Set<string>();
  for (let at = 0; at + length <= text.length; at++) parts.add(text.slice(at, at + length));
  for (let at = 0; at + length <= other.length; at++) if (parts.has(other.slice(at, at + length))) return true;
  return false;
}

/** What makes one in that shape. */
function shaped(prefix: string, rest: string): () => string {
  const alphabet = alphabetOf(prefix, rest);
  const shape = Array.from({ length: restLength(prefix, rest) }, (_, at) => {
    const character = rest.charAt(at);
    return isPunctuation(character) ? character : null;
  });
  const drawn = shape.filter((character) => character === null).length;
  const missing = Math.max(0, Math.ceil(minBits / Math.log2(alphabet.length)) - drawn);
  return () => {
    const text = random(alphabet, shape.length);
    return prefix + shape.map((character, at) => character ?? text.charAt(at)).join("") + random(alphabet, missing);
  };
}

function restLength(prefix: string, rest: string): number {
  return Math.min(Math.max(rest.length, minLength), maxLength - prefix.length - minBits);
}

/** The kinds of characters that there are, wherever they stand: which one stands where would tell something of the value. */
function alphabetOf(prefix: string, rest: string): string {
  if (/^A[KS]IA$/.test(prefix)) return `${upper}234567`;
  const plain = Array.from(rest)
    .filter((character) => !isPunctuation(character))
    .join("");
  if (/^[0-9a-f]{16,}$/.test(plain)) return `${digits}abcdef`;
  if (/^[0-9A-F]{16,}$/.test(plain)) return `${digits}ABCDEF`;
  const kinds = [lower, upper, digits].filter((kind) =>
    Array.from(plain).some((character) => kind.includes(character)),
  );
  return kinds.join("") || all;
}

/** What may stand in a placeholder and is neither letter nor digit. */
function isPunctuation(character: string): boolean {
  return /^[-_.:/+=~@!*,;#$%&|^?()<>[\]{}]$/.test(character);
}

function random(alphabet: string, length: number): string {
  const limit = 256 - (256 % alphabet.length);
  let text = "";
  while (text.length < length)
    for (const byte of crypto.getRandomValues(new Uint8Array(Math.min(1_024, 2 * length))))
      // without the bytes at the end every character is as likely as any other
      if (byte < limit && text.length < length) text += alphabet[byte % alphabet.length] ?? "";
  return text;
}

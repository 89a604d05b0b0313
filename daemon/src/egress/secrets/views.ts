/** Bytes as they are read: with each escape as the one byte that it stands for. */
export interface View {
  readonly bytes: Buffer;
  /** Where a place in `bytes` is in what they were read from. At their end: where an escape begins that is not whole, or the end. */
  rawAt(place: number): number;
}

/**
 * What an escape at a place is: 256 times its length and the byte it stands for; `open` where more bytes are needed to tell, and are to
 * come. A number, since there may be one for every two bytes.
 */
type Read = (raw: Buffer, at: number, last: boolean) => number;

const open = -1;
const backslash = 0x5c;
const percent = 0x25;
/** stands for what no pattern has in it */
const other = 0xff;

/** No escapes. */
export function plainView(raw: Buffer): View {
  return { bytes: raw, rawAt: same };
}

/** Escapes of JSON's strings. Source: RFC 8259, section 7 */
export function jsonView(raw: Buffer, last = true): View {
  return unescaped(raw, last, backslash, readJsonEscape);
}

/** Percent-encoding. What is no such thing stands for itself. Source: RFC 3986, section 2.1 */
export function percentView(raw: Buffer, last = true): View {
  return unescaped(raw, last, percent, readPercent);
}

function unescaped(raw: Buffer, last: boolean, mark: number, read: Read): View {
  let at = raw.indexOf(mark);
  if (at === -1) return plainView(raw);
  const bytes = Buffer.allocUnsafe(raw.length);
  /** for each escape, its place in `bytes` and how much longer it and those before it are than what they stand for */
  const places: number[] = [];
  const gains: number[] = [];
  let length = raw.copy(bytes, 0, 0, at);
  let gain = 0;
  while (at < raw.length) {
    const byte = raw[at] ?? 0;
    if (byte !== mark) {
      bytes[length] = byte;
      at += 1;
    } else {
      const escape = read(raw, at, last);
      if (escape === open) break;
      at += escape >> 8;
      gain += (escape >> 8) - 1;
      places.push(length);
      gains.push(gain);
      bytes[length] = escape & 0xff;
    }
    length += 1;
  }
  return view(bytes.subarray(0, length), places, gains);
}

function view(bytes: Buffer, places: readonly number[], gains: readonly number[]): View {
  return {
    bytes,
    rawAt(place) {
      let low = 0;
      let high = places.length;
      while (low < high) {
        const middle = (low + high) >> 1;
        if ((places[middle] ?? 0) < place) low = middle + 1;
        else high = middle;
      }
      return place + (gains[low - 1] ?? 0);
    },
  };
}

function same(place: number): number {
  return place;
}

/** by letter, what an escape of two characters stands for */
const jsonEscapes = new Uint8Array(256).fill(other);
for (const [index, letter] of Array.from('"\\/bfnrt').entries())
  jsonEscapes[letter.charCodeAt(0)] = '"\\/\b\f\n\r\t'.charCodeAt(index);

function readJsonEscape(raw: Buffer, at: number, last: boolean): number {
  const letter = raw[at + 1];
  if (letter === undefined) return last ? escape(1, backslash) : open;
  if (letter !== 0x75) return escape(2, jsonEscapes[letter] ?? other);
  let code = 0;
  for (let digit = at + 2; digit < at + 6; digit += 1) {
    const byte = raw[digit];
    if (byte === undefined) return last ? escape(2, other) : open;
    const value = hexValue(byte);
    if (value === -1) return escape(2, other);
    code = code * 16 + value;
  }
  return escape(6, code < 0x80 ? code : other);
}

function readPercent(raw: Buffer, at: number, last: boolean): number {
  const itself = escape(1, percent);
  const first = raw[at + 1];
  const second = raw[at + 2];
  if (first === undefined) return last ? itself : open;
  const high = hexValue(first);
  if (high === -1) return itself;
  if (second === undefined) return last ? itself : open;
  const low = hexValue(second);
  return low === -1 ? itself : escape(3, high * 16 + low);
}

function escape(length: number, byte: number): number {
  return length * 256 + byte;
}

function hexValue(byte: number): number {
  if (byte >= 0x30 && byte <= 0x39) return byte - 0x30;
  const letter = byte | 0x20;
  return letter >= 0x61 && letter <= 0x66 ? letter - 0x57 : -1;
}

import { randomFillSync } from "node:crypto";

/** Kinds of frames. Source: RFC 6455, section 5.2 */
export const opcodes = { continuation: 0, text: 1, binary: 2, close: 8, ping: 9, pong: 10 } as const;

/** What stands before the payload of a frame. */
export interface FrameHead {
  readonly final: boolean;
  readonly opcode: number;
  readonly key: Buffer | null;
  /** bytes of payload */
  readonly length: number;
}

/** Why a frame is none, in words. */
export class BadFrame extends Error {
  override readonly name = "BadFrame";
}

/** Reads a head; gives the number of bytes it has, or null where there are not enough. Throws `BadFrame`. */
export function readHead(bytes: Buffer, masked: boolean): { readonly head: FrameHead; readonly size: number } | null {
  if (bytes.length < 2) return null;
  const [first, second] = [bytes.readUInt8(0), bytes.readUInt8(1)];
  if ((first & 0x70) !== 0) throw new BadFrame("a WebSocket frame of an extension that nobody asked for");
  if (((second & 0x80) !== 0) !== masked)
    throw new BadFrame("a WebSocket frame that is masked where none should be, or not where it should");
  const opcode = first & 0x0f;
  const final = (first & 0x80) !== 0;
  if (!(Object.values(opcodes) as number[]).includes(opcode))
    throw new BadFrame("a WebSocket frame of an unknown kind");
  const short = second & 0x7f;
  if (opcode >= opcodes.close && (short > 125 || !final))
    throw new BadFrame("a WebSocket control frame that is too long or cut");
  const lengthBytes = short === 126 ? 2 : short === 127 ? 8 : 0;
  const size = 2 + lengthBytes + (masked ? 4 : 0);
  if (bytes.length < size) return null;
  const length =
    lengthBytes === 0 ? short : lengthBytes === 2 ? bytes.readUInt16BE(2) : Number(bytes.readBigUInt64BE(2));
  if (!Number.isSafeInteger(length)) throw new BadFrame("a WebSocket frame that is too long");
  const key = masked ? Buffer.from(bytes.subarray(size - 4, size)) : null;
  return { head: { final, opcode, key, length }, size };
}

/** A frame, in pieces; masked with a key of its own where asked for. */
export function renderFrame(
  kind: { final: boolean; opcode: number; masked: boolean },
  payload: readonly Buffer[],
): Buffer[] {
  const length = payload.reduce((sum, piece) => sum + piece.length, 0);
  const lengthBytes = length < 126 ? 0 : length < 0x10000 ? 2 : 8;
  const head = Buffer.alloc(2 + lengthBytes + (kind.masked ? 4 : 0));
  head[0] = (kind.final ? 0x80 : 0) | kind.opcode;
  head[1] = (kind.masked ? 0x80 : 0) | (lengthBytes === 0 ? length : lengthBytes === 2 ? 126 : 127);
  if (lengthBytes === 2) head.writeUInt16BE(length, 2);
  if (lengthBytes === 8) head.writeBigUInt64BE(BigInt(length), 2);
  if (!kind.masked) return [head, ...payload];
  const key = randomFillSync(head.subarray(head.length - 4));
  return [head, masked(Buffer.concat(payload), key, 0)];
}

/** A copy with the mask put on, or taken off. `offset`: how many bytes of the payload came before. Source: RFC 6455, section 5.3 */
export function masked(payload: Buffer, key: Buffer, offset: number): Buffer {
  // of its own memory, so that it can be taken as words
  const output = Buffer.from(new ArrayBuffer(payload.length));
  payload.copy(output);
  const turned = Buffer.from([0, 1, 2, 3].map((at) => key[(offset + at) & 3] ?? 0));
  const words = new Int32Array(output.buffer, 0, output.length >> 2);
  const word = new Int32Array(new Uint8Array(turned).buffer)[0] ?? 0;
  for (let at = 0; at < words.length; at += 1) words[at] = (words[at] ?? 0) ^ word;
  for (let at = words.length * 4; at < output.length; at += 1) output[at] = (output[at] ?? 0) ^ (turned[at & 3] ?? 0);
  return output;
}

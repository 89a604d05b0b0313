import { Transform, type TransformCallback } from "node:stream";
import { json, plain } from "../forms.js";
import type { Grants } from "../grants.js";
import { Replacer, replaceAll, type Pattern } from "../replacer.js";
import { UnreadableContent } from "../secret-refusal.js";
import { BadFrame, masked, opcodes, readHead, renderFrame, type FrameHead } from "./frame.js";

/** bytes of a message that are waited for, before they go on as a fragment of it */
const maxFragmentBytes = 64 * 1024;
/** how much longer what came at once may be with the values in it: bytes, and times */
const maxGrowth = { bytes: 1024 * 1024, times: 16 };
const maxControlBytes = 125;

interface Direction {
  readonly side: "client" | "server";
  /** how a message is replaced that begins as JSON does, and any other */
  readonly json: () => Replacer;
  readonly other: () => Replacer;
  /** what control frames tell that a server wrote */
  readonly control: readonly Pattern[];
}

/**
 * One direction of a WebSocket: messages with patterns replaced, in frames of its own, as long as they need to be. A frame passes once it
 * is there as a whole, or in fragments of 64 KiB. Ends with what a pattern throws, and with `UnreadableContent` for what are no frames.
 * Source: RFC 6455, section 5
 */
export class WebSocketStream extends Transform {
  readonly #direction: Direction;
  readonly #masked: boolean;
  /** bytes of a head, or of a control frame, that is not there as a whole */
  #pending: Buffer = Buffer.alloc(0);
  #frame: FrameHead | null = null;
  /** bytes of the frame's payload so far */
  #passed = 0;
  /** opcode of the next frame to send of this message; null between messages */
  #opcode: number | null = null;
  #replacer: Replacer | null = null;
  #payload: Buffer[] = [];
  #payloadBytes = 0;

  constructor(direction: Direction) {
    super();
    this.#direction = direction;
    this.#masked = direction.side === "client";
  }

  /** From the client, with values put in. */
  static toServer(grants: Grants): WebSocketStream {
    const patterns = { json: grants.patterns("websocket", json), other: grants.patterns("websocket", plain) };
    return new WebSocketStream({
      side: "client",
      json: () => new Replacer(patterns.json, (raw, last) => json.viewOf(raw, last)),
      other: () => new Replacer(patterns.other),
      control: [],
    });
  }

  /** From the server, with values kept out. */
  static toClient(patterns: readonly Pattern[]): WebSocketStream {
    const replacer = (): Replacer => new Replacer(patterns);
    return new WebSocketStream({ side: "server", json: replacer, other: replacer, control: patterns });
  }

  override _transform(chunk: Buffer, _encoding: BufferEncoding, done: TransformCallback): void {
    try {
      this.#take(chunk);
    } catch (error) {
      done(error instanceof BadFrame ? new UnreadableContent(this.#direction.side, error.message) : (error as Error));
      return;
    }
    done();
  }

  #take(chunk: Buffer): void {
    let rest = chunk;
    while (rest.length > 0) {
      rest = this.#frame === null ? this.#takeHead(rest) : this.#takePayload(this.#frame, rest);
    }
  }

  /** Gives back what is after the head. */
  #takeHead(bytes: Buffer): Buffer {
    // no head is longer than 14 bytes
    const known = this.#pending.length;
    const start = Buffer.concat([this.#pending, bytes.subarray(0, 14)]);
    const read = readHead(start, this.#masked);
    if (read === null) {
      this.#pending = start;
      return bytes.subarray(start.length - known);
    }
    this.#pending = Buffer.alloc(0);
    this.#begin(read.head);
    return bytes.subarray(read.size - known);
  }

  #begin(head: FrameHead): void {
    this.#frame = head;
    this.#passed = 0;
    if (head.opcode < opcodes.close) {
      if ((head.opcode === opcodes.continuation) !== (this.#opcode !== null)) {
        throw new BadFrame("a WebSocket message that begins within another, or a continuation of none");
      }
      if (this.#opcode === null) this.#opcode = head.opcode;
    }
    if (head.length === 0) this.#endFrame(head);
  }

  #takePayload(head: FrameHead, bytes: Buffer): Buffer {
    const part = bytes.subarray(0, head.length - this.#passed);
    const plainPart = head.key === null ? part : masked(part, head.key, this.#passed);
    this.#passed += part.length;
    if (head.opcode >= opcodes.close) this.#pending = Buffer.concat([this.#pending, plainPart]);
    else this.#replace(plainPart);
    if (this.#passed === head.length) this.#endFrame(head);
    return bytes.subarray(part.length);
  }

  #replace(part: Buffer): void {
    let rest = part;
    if (this.#replacer === null) {
      // blanks before the message do not tell what it is, and are in no pattern
      const start = part.findIndex((byte) => byte !== 0x20 && (byte < 0x09 || byte > 0x0d));
      this.#hold([part.subarray(0, start === -1 ? part.length : start)]);
      if (start === -1) return;
      rest = part.subarray(start);
      const isJson = '{["'.includes(String.fromCharCode(rest[0] ?? 0));
      this.#replacer = isJson ? this.#direction.json() : this.#direction.other();
    }
    this.#hold(this.#replacer.push(rest), rest.length);
  }

  /** @param from bytes that these came from */
  #hold(pieces: readonly Buffer[], from = Infinity): void {
    let bytes = 0;
    for (const piece of pieces) {
      if (piece.length > 0) this.#payload.push(piece);
      bytes += piece.length;
    }
    if (bytes > maxGrowth.bytes + from * maxGrowth.times) {
      throw new BadFrame("a WebSocket message that grows beyond all measure with the values in it");
    }
    this.#payloadBytes += bytes;
    if (this.#payloadBytes >= maxFragmentBytes) this.#send(false);
  }

  #endFrame(head: FrameHead): void {
    this.#frame = null;
    if (head.opcode >= opcodes.close) {
      this.#control(head);
      return;
    }
    if (head.final) {
      if (this.#replacer !== null) this.#hold(this.#replacer.end());
      this.#send(true);
      this.#replacer = null;
      this.#opcode = null;
    } else if (this.#payloadBytes > 0) this.#send(false);
  }

  #control(head: FrameHead): void {
    const payload = this.#pending;
    this.#pending = Buffer.alloc(0);
    const { control } = this.#direction;
    let passed = control.length === 0 ? payload : replaceAll(payload, control);
    // of a reason to close only the code is left where the rest has no room
    if (passed.length > maxControlBytes) passed = passed.subarray(0, head.opcode === opcodes.close ? 2 : 0);
    this.#write(head.opcode, true, [passed]);
  }

  #send(final: boolean): void {
    this.#write(this.#opcode ?? opcodes.continuation, final, this.#payload);
    this.#opcode = opcodes.continuation;
    this.#payload = [];
    this.#payloadBytes = 0;
  }

  #write(opcode: number, final: boolean, payload: readonly Buffer[]): void {
    for (const piece of renderFrame({ final, opcode, masked: this.#masked }, payload)) this.push(piece);
  }
}

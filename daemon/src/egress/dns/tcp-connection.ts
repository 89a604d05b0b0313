import type { Socket } from "node:net";
import { maxQuerySize } from "./query.js";

const idleMs = 5000;
/** queries of one connection that wait for an answer; what comes after them is not read until then */
const maxPending = 8;
/** answers that a client does not read; one more ends the connection */
const maxUnread = 128 * 1024;
const prefixSize = 2;

/** One client's connection: queries and answers, each behind its length. Source: RFC 7766 */
export class TcpConnection {
  readonly #socket: Socket;
  readonly #answer: (query: Buffer) => Promise<Buffer | null>;
  readonly #timer: NodeJS.Timeout;
  #rest: Buffer = Buffer.alloc(0);
  #pending = 0;
  #ended = false;

  /** `answer` must not throw; null is no answer. */
  constructor(socket: Socket, answer: (query: Buffer) => Promise<Buffer | null>) {
    this.#socket = socket;
    this.#answer = answer;
    this.#timer = setTimeout(() => this.#idle(), idleMs);
    socket.on("error", () => undefined); // a connection that breaks is closed, which is all that there is to do
    socket.on("data", (chunk: Buffer) => this.#receive(chunk));
    socket.on("end", () => {
      this.#ended = true;
      this.#closeWhenDone();
    });
    socket.on("close", () => clearTimeout(this.#timer));
  }

  destroy(): void {
    this.#socket.destroy();
  }

  #receive(chunk: Buffer): void {
    this.#rest = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    this.#takeQueries();
  }

  #takeQueries(): void {
    while (this.#rest.length >= prefixSize && this.#pending < maxPending) {
      const size = this.#rest.readUInt16BE(0);
      if (size > maxQuerySize) return this.destroy();
      if (this.#rest.length < prefixSize + size) break;
      const query = this.#rest.subarray(prefixSize, prefixSize + size);
      this.#rest = this.#rest.subarray(prefixSize + size);
      void this.#serve(query);
    }
    if (this.#pending < maxPending) this.#socket.resume();
    else this.#socket.pause();
  }

  async #serve(query: Buffer): Promise<void> {
    this.#pending += 1;
    this.#timer.refresh(); // by whole queries only: single bytes keep no connection open
    const answer = await this.#answer(query);
    this.#pending -= 1;
    if (this.#socket.destroyed) return;
    if (answer !== null) this.#send(answer);
    this.#takeQueries();
    this.#closeWhenDone();
  }

  #send(answer: Buffer): void {
    if (this.#socket.writableLength > maxUnread) return this.destroy();
    const prefix = Buffer.alloc(prefixSize);
    prefix.writeUInt16BE(answer.length);
    this.#socket.write(Buffer.concat([prefix, answer]));
  }

  #idle(): void {
    if (this.#pending > 0) this.#timer.refresh();
    else this.destroy();
  }

  #closeWhenDone(): void {
    if (this.#ended && this.#pending === 0) this.#socket.end();
  }
}

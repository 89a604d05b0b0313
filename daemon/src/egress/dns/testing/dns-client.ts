import { createSocket, type Socket as UdpSocket } from "node:dgram";
import { connect, type Socket } from "node:net";
import { decode, encode, type Answer, type DecodedPacket, type OptAnswer, type Question } from "dns-packet";

export interface Asking {
  readonly type?: string;
  readonly id?: number;
  readonly class?: Question["class"];
  /** the size in an OPT record */
  readonly edns?: number;
  readonly ednsVersion?: number;
  readonly dnssecOk?: boolean;
}

/** The bytes of a query. */
export function query(name: string, asking: Asking = {}): Buffer {
  const { type = "A", id = 1, edns, ednsVersion = 0, dnssecOk = false } = asking;
  const option: OptAnswer = {
    type: "OPT",
    name: ".",
    udpPayloadSize: edns ?? 0,
    extendedRcode: 0,
    ednsVersion,
    flags: dnssecOk ? 0x8000 : 0,
    flag_do: dnssecOk,
    options: [],
  };
  return encode({
    type: "query",
    id,
    flags: 0x0100,
    questions: [{ type: type as Question["type"], name, class: asking.class ?? "IN" }],
    additionals: edns === undefined ? [] : [option],
  });
}

/** An answer, with what `decode` leaves in the flags. */
export interface Answered extends DecodedPacket {
  readonly bytes: Buffer;
  /** 0 to 15 */
  readonly code: number;
}

function answered(bytes: Buffer): Answered {
  return { ...decode(bytes), bytes, code: bytes.readUInt16BE(2) & 0xf };
}

export function addressesIn({ answers = [] }: DecodedPacket): string[] {
  return answers.flatMap((answer: Answer) => (answer.type === "A" || answer.type === "AAAA" ? [answer.data] : []));
}

/** Asks by UDP from an address of its own. */
export class UdpClient {
  readonly received: Buffer[] = [];
  readonly #socket: UdpSocket;
  readonly #server: number;
  #wake: () => void = () => undefined;

  private constructor(socket: UdpSocket, server: number) {
    this.#socket = socket;
    this.#server = server;
    socket.on("message", (bytes) => {
      this.received.push(bytes);
      this.#wake();
    });
  }

  static async from(address: string, server: number): Promise<UdpClient> {
    const socket = createSocket("udp4");
    await new Promise<void>((resolve) => socket.bind(0, address, resolve));
    return new UdpClient(socket, server);
  }

  send(bytes: Buffer): Promise<void> {
    return new Promise((resolve) => this.#socket.send(bytes, this.#server, "127.0.0.1", () => resolve()));
  }

  /** Returns the next answer, or null when none comes in time. */
  async next(waitMs = 3000): Promise<Answered | null> {
    if (this.received.length === 0) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, waitMs);
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
    const bytes = this.received.shift();
    return bytes === undefined ? null : answered(bytes);
  }

  async ask(name: string, asking: Asking = {}): Promise<Answered> {
    await this.send(query(name, asking));
    const answer = await this.next();
    if (answer === null) throw new Error(`No answer came for "${name}"`);
    return answer;
  }

  close(): void {
    this.#socket.close();
  }
}

/** Asks by TCP from an address of its own. */
export class TcpClient {
  readonly answers: Answered[] = [];
  readonly socket: Socket;
  closed = false;

  constructor(address: string, server: number) {
    this.socket = connect({ host: "127.0.0.1", port: server, localAddress: address, allowHalfOpen: true });
    let bytes = Buffer.alloc(0);
    this.socket.on("error", () => undefined);
    this.socket.on("close", () => (this.closed = true));
    this.socket.on("end", () => this.socket.end());
    this.socket.on("data", (chunk: Buffer) => {
      bytes = Buffer.concat([bytes, chunk]);
      while (bytes.length >= 2 && bytes.length >= 2 + bytes.readUInt16BE(0)) {
        this.answers.push(answered(bytes.subarray(2, 2 + bytes.readUInt16BE(0))));
        bytes = bytes.subarray(2 + bytes.readUInt16BE(0));
      }
    });
  }

  send(message: Buffer): void {
    this.socket.write(framed(message));
  }
}

/** A message behind its length. */
export function framed(message: Buffer): Buffer {
  const size = Buffer.alloc(2);
  size.writeUInt16BE(message.length);
  return Buffer.concat([size, message]);
}

import { once } from "node:events";
import { connect, type Socket } from "node:net";

/** The client's end of a connection, with all that came. */
export class Peer {
  readonly socket: Socket;
  bytes = Buffer.alloc(0);
  ended = false;
  error: NodeJS.ErrnoException | null = null;
  readonly closed: Promise<void>;

  constructor(socket: Socket) {
    this.socket = socket;
    socket.on("data", (chunk) => (this.bytes = Buffer.concat([this.bytes, chunk])));
    socket.on("end", () => (this.ended = true));
    socket.on("error", (error) => (this.error = error));
    this.closed = new Promise((resolve) => socket.once("close", () => resolve()));
  }

  get text(): string {
    return this.bytes.toString("latin1");
  }

  /** all that came until `pattern` is in it. Throws after five seconds */
  async until(pattern: RegExp): Promise<string> {
    const signal = AbortSignal.timeout(5_000);
    while (!pattern.test(this.text)) {
      if (this.ended || this.socket.destroyed)
        throw new Error(`closed before ${String(pattern)}: ${JSON.stringify(this.text)}`);
      await once(this.socket, "data", { signal });
    }
    return this.text;
  }

  /** all that came until the other side closed */
  async rest(): Promise<string> {
    await this.closed;
    return this.text;
  }
}

/** Connects from an address of one's own, as a sandbox does. */
export async function connectFrom(localAddress: string, port: number): Promise<Peer> {
  const peer = new Peer(connect({ host: "127.0.0.1", port, localAddress }));
  await once(peer.socket, "connect");
  return peer;
}

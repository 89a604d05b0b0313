import type { Socket } from "node:net";
import type { TLSSocket } from "node:tls";
import type { Ahead, Connection, Flow } from "./connection.js";

const waited = new WeakSet<Socket>();

/** Whether a connection waited for its first request, so that the server may have given it up meanwhile. */
export function hasWaited(socket: Socket): boolean {
  return waited.has(socket);
}

/**
 * A connection to a server that is made while the client's TLS is, so that its first request does not wait for it. Nothing of the client goes
 * over it before that. It is there for one request, and gone with the client, with a failure, or when the server ends it.
 */
export class ConnectionAhead implements Ahead {
  readonly #connection: Connection;
  readonly #flow: Flow;
  readonly #protocols: string;
  #socket: Promise<TLSSocket> | null;

  constructor(
    connection: Connection,
    { flow, protocols }: { flow: Flow; protocols: readonly string[] },
    open: () => Promise<TLSSocket>,
  ) {
    this.#connection = connection;
    this.#flow = flow;
    this.#protocols = protocols.join();
    connection.flows.add(flow); // so that a change of the policy reaches it
    this.#socket = open();
    this.#socket.then(
      (socket) => this.#made(socket),
      () => this.#forget(),
    );
  }

  take(name: string, protocols: readonly string[]): Promise<TLSSocket> | null {
    if (name !== this.#flow.name || protocols.join() !== this.#protocols) return null;
    const socket = this.#socket;
    this.#forget();
    return socket;
  }

  #made(socket: TLSSocket): void {
    if (this.#socket === null) return;
    waited.add(socket);
    const leave = (): void => {
      if (this.#socket !== null) socket.destroy();
      this.#forget();
    };
    socket.once("close", leave);
    if (this.#connection.signal.aborted) leave();
    else this.#connection.signal.addEventListener("abort", leave, { once: true });
  }

  #forget(): void {
    this.#socket = null;
    this.#connection.flows.delete(this.#flow);
  }
}

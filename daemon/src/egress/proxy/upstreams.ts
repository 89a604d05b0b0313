import { connect, type Socket } from "node:net";
import type { TLSSocket } from "node:tls";
import type { Trusted } from "../tls/roots.js";
import type { Connection, Flow } from "./connection.js";
import { dial, type Resolve } from "./dial.js";
import { Http1Call } from "./http1-upstream.js";
import { Http2Call } from "./http2-upstream.js";
import { BadRequest } from "./message.js";
import type { SessionPool } from "./session-pool.js";
import { tcpKeepAlive, type Timings } from "./timings.js";
import { secured } from "./tls-client.js";
import { BadAnswer, type Call, type CallEvents, type UpstreamCall } from "./upstream-call.js";
import type { Server, UpstreamPool } from "./upstream-pool.js";

export interface UpstreamsOptions {
  readonly resolve: Resolve;
  readonly ipv6: boolean;
  readonly timings: Timings;
  readonly pool: UpstreamPool;
  readonly sessions: SessionPool;
  /** what servers' certificates are verified against */
  readonly trusted: Trusted;
  /** where servers listen, other than on their ports in tests */
  readonly portOf: (port: number) => number;
}

export interface Wanted {
  readonly server: Server;
  readonly call: Call;
  /** whether the connection may be one that served others, and serves others afterwards */
  readonly keep: boolean;
  /** whether the client speaks HTTP/2, so that the server may */
  readonly http2: boolean;
}

export type StartedEvents = CallEvents & {
  /** The call is on its way; its body is wanted. */
  started(call: UpstreamCall): void;
};

/** The way of requests to servers: by connections that are kept for a sandbox, or by new ones that its policy allows. */
export class Upstreams {
  readonly #options: UpstreamsOptions;

  constructor(options: UpstreamsOptions) {
    this.#options = options;
  }

  /** Sends a request. Every failure is told by `failed`. */
  call(connection: Connection, flow: Flow, wanted: Wanted, events: StartedEvents): void {
    if (wanted.http2 && wanted.server.secure) void this.#call2(connection, flow, wanted, events);
    else this.#call1(connection, { flow, wanted, ready: null }, events);
  }

  #call1(
    connection: Connection,
    { flow, wanted, ready }: { flow: Flow; wanted: Wanted; ready: TLSSocket | null },
    events: StartedEvents,
  ): void {
    const { server, call, keep } = wanted;
    const { pool } = this.#options;
    let unused = ready;
    const open = async (): Promise<Socket> => {
      const socket = unused;
      unused = null;
      return socket ?? this.#open(connection, flow, server, ["http/1.1"]);
    };
    const agent = keep ? pool.agentFor(connection, server, allows(connection, flow)) : pool.single(connection);
    const unneeded = (): void => void unused?.destroy(); // another one was free meanwhile
    let started: UpstreamCall;
    try {
      started = new Http1Call(call, { agent, keep, dial: open, unneeded }, events);
    } catch (error) {
      // Node's own idea of a method, path or field, stricter than that of its parser
      unused?.destroy();
      events.failed(new BadRequest((error as Error).message));
      return;
    }
    events.started(started);
  }

  async #call2(connection: Connection, flow: Flow, wanted: Wanted, events: StartedEvents): Promise<void> {
    const { server, call } = wanted;
    try {
      const found = await this.#options.sessions.find(connection, server, {
        allows: allows(connection, flow),
        signal: connection.signal,
        open: () => this.#openSecure(connection, flow, server, ["h2", "http/1.1"]),
      });
      if ("http1" in found) {
        this.#call1(connection, { flow, wanted, ready: found.http1 }, events);
        return;
      }
      const started = new Http2Call(call, found.http2, events);
      events.started(started);
      events.connected(found.http2.address);
    } catch (error) {
      events.failed(error as Error);
    }
  }

  #open(connection: Connection, flow: Flow, server: Server, protocols: readonly string[]): Promise<Socket> {
    return server.secure ? this.#openSecure(connection, flow, server, protocols) : this.#dial(connection, flow);
  }

  async #openSecure(
    connection: Connection,
    flow: Flow,
    { name }: Server,
    protocols: readonly string[],
  ): Promise<TLSSocket> {
    const { timings, trusted } = this.#options;
    const socket = await this.#dial(connection, flow);
    return secured(socket, { name, protocols, trusted: trusted(), timeoutMs: timings.connect });
  }

  async #dial(connection: Connection, flow: Flow): Promise<Socket> {
    const port = this.#options.portOf(flow.port);
    const open = (host: string): Socket => connect({ host, port, noDelay: true, ...tcpKeepAlive });
    const socket = await dial(connection, flow, { ...this.#options, open });
    if (connection.countUpstream(socket)) return socket;
    socket.destroy();
    throw new BadAnswer("too many connections to servers");
  }
}

function allows(connection: Connection, { port }: Flow): (address: string) => boolean {
  return (address) => connection.policy()?.connectResolved(address, port, "tcp").allowed ?? false;
}

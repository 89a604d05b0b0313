import { createSocket, type RemoteInfo, type Socket as UdpSocket } from "node:dgram";
import { createServer, type Server, type Socket } from "node:net";
import type { EgressClient } from "../egress-client.js";
import { ClientStates, clientLimits, type ClientState, type DnsCounters } from "./client-states.js";
import { parseQuery } from "./query.js";
import { encodeReply } from "./reply.js";
import { Responder, type ResponderOptions } from "./responder.js";
import { TcpConnection } from "./tcp-connection.js";

/** docs/egress.md repeats it */
const defaultMaxConnections = 1024;
const samePortTries = 8;

export interface DnsServerOptions extends ResponderOptions {
  /** of all sandboxes together; 1024 */
  readonly maxConnections?: number;
  /** milliseconds on a clock that never goes back */
  readonly now?: () => number;
}

export interface DnsPorts {
  readonly udpPort: number;
  readonly tcpPort: number;
}

/**
 * Answers the DNS queries of sandboxes: only allowed names, only accepted addresses, and those only when the kernel lets the sandbox
 * connect to them. Senders are told apart by their address; who is not known gets no answer.
 */
export class DnsServer {
  readonly #options: DnsServerOptions;
  readonly #responder: Responder;
  readonly #states: ClientStates;
  readonly #now: () => number;
  readonly #maxConnections: number;
  readonly #connections = new Set<TcpConnection>();
  #udp: UdpSocket | undefined;
  #tcp: Server | undefined;

  constructor(options: DnsServerOptions) {
    this.#options = options;
    this.#now = options.now ?? (() => performance.now());
    this.#maxConnections = options.maxConnections ?? defaultMaxConnections;
    this.#responder = new Responder(options);
    this.#states = new ClientStates(this.#now);
  }

  /**
   * Listens at an IPv4 address: at the ports that are asked for, otherwise at free ones, the same one for both protocols where that can be
   * had. Throws what binding throws.
   */
  async listen(host: string, wanted?: DnsPorts): Promise<DnsPorts> {
    if (wanted !== undefined) {
      this.#udp = await this.#bindUdp(host, wanted.udpPort);
      this.#tcp = await this.#bindTcp(host, wanted.tcpPort);
      return wanted;
    }
    for (let left = samePortTries; ; left -= 1) {
      const udp = await this.#bindUdp(host, 0);
      const udpPort = udp.address().port;
      try {
        const tcp = await this.#bindTcp(host, left > 0 ? udpPort : 0);
        this.#udp = udp;
        this.#tcp = tcp;
        return { udpPort, tcpPort: portOf(tcp) };
      } catch (error) {
        udp.close();
        if (left === 0 || (error as NodeJS.ErrnoException).code !== "EADDRINUSE") throw error;
      }
    }
  }

  /** What is being answered gets no answer any more. */
  async close(): Promise<void> {
    const { udp, tcp } = { udp: this.#udp, tcp: this.#tcp };
    this.#udp = undefined;
    this.#tcp = undefined;
    const closed = [
      new Promise<void>((resolve) => (udp === undefined ? resolve() : udp.close(() => resolve()))),
      new Promise<void>((resolve) => (tcp === undefined ? resolve() : tcp.close(() => resolve()))),
    ];
    for (const connection of this.#connections) connection.destroy();
    this.#states.end();
    await Promise.all(closed);
  }

  /** Zeros for an address that has not asked. */
  counters(address: string): DnsCounters {
    return this.#states.counters(address);
  }

  /** For when a sandbox is gone, or its address is another one's. */
  forget(address: string): void {
    this.#states.forget(address);
  }

  #bindUdp(host: string, port: number): Promise<UdpSocket> {
    return new Promise((resolve, reject) => {
      // without `lookup`, Node puts off each answer to look up what already is an address
      const udp = createSocket({ type: "udp4", lookup: (name, _, done) => done(null, name, 4) });
      udp.once("error", reject);
      udp.bind(port, host, () => {
        udp.off("error", reject);
        udp.on("error", this.#options.report);
        udp.on("message", (message, sender) => void this.#receive(udp, message, sender));
        resolve(udp);
      });
    });
  }

  #bindTcp(host: string, port: number): Promise<Server> {
    return new Promise((resolve, reject) => {
      const tcp = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => this.#accept(socket));
      tcp.once("error", reject);
      tcp.listen({ host, port }, () => {
        tcp.off("error", reject);
        tcp.on("error", this.#options.report);
        resolve(tcp);
      });
    });
  }

  async #receive(udp: UdpSocket, message: Buffer, { address, port }: RemoteInfo): Promise<void> {
    const client = this.#options.find(address);
    if (client === undefined) return;
    const answer = await this.#answer(message, client, "udp");
    if (answer === null || udp !== this.#udp) return;
    udp.send(answer, port, address, () => undefined); // to a sandbox that is gone; a client asks again
  }

  #accept(socket: Socket): void {
    const address = socket.remoteAddress ?? "";
    const client = this.#options.find(address);
    const open = client === undefined ? undefined : this.#states.of(client).connections;
    if (open === undefined || open.size >= clientLimits.connections || this.#connections.size >= this.#maxConnections) {
      socket.on("error", () => undefined);
      socket.destroy();
      return;
    }
    const connection = new TcpConnection(socket, async (query) => {
      const asker = this.#options.find(address);
      if (asker !== undefined && asker.sandbox === client?.sandbox) return this.#answer(query, asker, "tcp");
      socket.destroy();
      return null;
    });
    open.add(connection);
    this.#connections.add(connection);
    socket.on("close", () => {
      open.delete(connection);
      this.#connections.delete(connection);
    });
  }

  /** Never throws. */
  async #answer(message: Buffer, asker: EgressClient, protocol: "tcp" | "udp"): Promise<Buffer | null> {
    const state = this.#states.of(asker);
    const turn = state.turns.take();
    const isIts = typeof turn === "boolean" ? turn : await turn;
    // after the wait it may be another one's address, or have another policy
    const client = typeof turn === "boolean" ? asker : this.#options.find(asker.address);
    if (client?.sandbox !== asker.sandbox || this.#udp === undefined) return null;
    try {
      if (!isIts || state.pending >= clientLimits.pending) {
        this.#drop(client, state, protocol);
        return null;
      }
      const query = parseQuery(message);
      if (query === null) return null;
      if (Buffer.isBuffer(query)) {
        state.counters.refused += 1;
        return client.policy.silent ? null : query;
      }
      state.pending += 1;
      try {
        const reply = await this.#responder.answer(query, { client, state, protocol });
        return reply === null ? null : encodeReply(query, reply, protocol);
      } finally {
        state.pending -= 1;
      }
    } catch (cause) {
      this.#options.report(new Error(`Cannot answer a DNS query of sandbox "${client.sandbox}"`, { cause }));
      return null;
    }
  }

  /** Drops a query, and says so from time to time. */
  #drop({ sandbox }: EgressClient, state: ClientState, protocol: "tcp" | "udp"): void {
    state.counters.limited += 1;
    if (this.#now() - state.limitAuditedAt < clientLimits.auditLimitedMs) return;
    state.limitAuditedAt = this.#now();
    const what = { name: null, address: null, port: null, allowed: false, rule: "limit of DNS queries" };
    this.#options.audit({ sandbox, kind: "dns", protocol, ...what });
  }
}

function portOf(server: Server): number {
  const address = server.address();
  if (address === null || typeof address === "string")
    throw new Error("Cannot tell the port of a TCP server: it has none");
  return address.port;
}

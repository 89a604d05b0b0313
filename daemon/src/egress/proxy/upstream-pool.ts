import { Agent, type ClientRequestArgs, type RequestOptions } from "node:http";
import { Socket } from "node:net";
import type { Duplex } from "node:stream";

const maxFreeSockets = 16;
const maxNames = 32;

/** What connections are kept for. */
export interface Server {
  readonly name: string;
  readonly port: number;
  readonly secure: boolean;
}

export function serverKey({ name, port, secure }: Server): string {
  return `${secure ? "https" : "http"}://${name}:${port}`;
}

/** What a request needs of the agent: the connection, should there be no free one. */
export interface UpstreamRequestOptions extends RequestOptions {
  readonly dial: () => Promise<Socket>;
}

/** The connections to one server on behalf of one sandbox. */
class UpstreamAgent extends Agent {
  readonly sandbox: string;
  readonly server: Server | null;
  readonly #idleMs: number;

  constructor(sandbox: string, server: Server | null, idleMs: number) {
    super({ keepAlive: true, maxFreeSockets, scheduling: "lifo" });
    this.sandbox = sandbox;
    this.server = server;
    this.#idleMs = idleMs;
  }

  override createConnection(
    options: ClientRequestArgs & Partial<Pick<UpstreamRequestOptions, "dial">>,
    done?: (error: Error | null, socket: Duplex) => void,
  ): undefined {
    const { dial } = options;
    if (dial === undefined || done === undefined) throw new TypeError("a request without a way to its server");
    // with an error the socket is not looked at
    dial().then(
      (socket) => done(null, socket),
      (error: Error) => done(error, undefined as never),
    );
    return undefined;
  }

  override keepSocketAlive(socket: Duplex): boolean {
    if (this.#idleMs === 0) return false;
    super.keepSocketAlive(socket);
    if (socket instanceof Socket) socket.setTimeout(this.#idleMs);
    return true;
  }

  override reuseSocket(socket: Duplex, request: Parameters<Agent["reuseSocket"]>[1]): void {
    super.reuseSocket(socket, request);
    if (socket instanceof Socket) socket.setTimeout(0);
  }

  get busy(): boolean {
    return Object.keys(this.sockets).length > 0;
  }

  /** Closes the free connections whose address is not allowed. */
  prune(allows: (address: string) => boolean): void {
    for (const sockets of Object.values(this.freeSockets)) {
      for (const socket of sockets ?? []) if (!allows(socket.remoteAddress ?? "")) socket.destroy();
    }
  }
}

/** Connections to servers that wait for their next request, each for the sandbox and server that it was made for. */
export class UpstreamPool {
  readonly #idleMs: number;
  /** by the sandbox's address, then by server, the longest unused first */
  readonly #agents = new Map<string, Map<string, UpstreamAgent>>();

  constructor(idleMs: number) {
    this.#idleMs = idleMs;
  }

  /** The agent for a sandbox's requests to a server, with no free connection that is not allowed now. */
  agentFor(who: { sandbox: string; address: string }, server: Server, allows: (address: string) => boolean): Agent {
    let agents = this.#agents.get(who.address);
    if (agents === undefined) this.#agents.set(who.address, (agents = new Map<string, UpstreamAgent>()));
    const key = serverKey(server);
    let agent = agents.get(key);
    if (agent !== undefined && agent.sandbox !== who.sandbox) {
      agent.destroy();
      agent = undefined;
    }
    agent ??= new UpstreamAgent(who.sandbox, server, this.#idleMs);
    agents.delete(key);
    agents.set(key, agent);
    agent.prune(allows);
    if (agents.size > maxNames) dropUnused(agents, key);
    return agent;
  }

  /** An agent for one request, which gets a connection of its own. */
  single(who: { sandbox: string }): Agent {
    return new UpstreamAgent(who.sandbox, null, 0);
  }

  /** Closes the free connections of an address that are not allowed. */
  prune(address: string, allows: (server: Server, address: string) => boolean): void {
    for (const agent of this.#agents.get(address)?.values() ?? []) {
      const { server } = agent;
      if (server !== null) agent.prune((remote) => allows(server, remote));
    }
  }

  /** Closes all that an address has. */
  forget(address: string): void {
    for (const agent of this.#agents.get(address)?.values() ?? []) agent.destroy();
    this.#agents.delete(address);
  }

  forgetAll(): void {
    for (const address of this.#agents.keys()) this.forget(address);
  }
}

/** One agent; no more are in use than the sandbox has connections. */
function dropUnused(agents: Map<string, UpstreamAgent>, except: string): void {
  for (const [key, agent] of agents) {
    if (agent.busy || key === except) continue;
    agent.destroy();
    agents.delete(key);
    return;
  }
}

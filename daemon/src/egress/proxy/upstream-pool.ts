import { Agent, type ClientRequestArgs, type RequestOptions } from "node:http";
import { Socket } from "node:net";
import type { Duplex } from "node:stream";

const maxFreeSockets = 4;
const maxNames = 32;

/** What a request needs of the agent: the connection, should there be no free one. */
export interface UpstreamRequestOptions extends RequestOptions {
  readonly dial: () => Promise<Socket>;
}

/** The connections to one name on behalf of one sandbox. */
class UpstreamAgent extends Agent {
  readonly sandbox: string;
  readonly #idleMs: number;

  constructor(sandbox: string, idleMs: number) {
    super({ keepAlive: true, maxFreeSockets, scheduling: "lifo" });
    this.sandbox = sandbox;
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
    for (const socket of Object.values(this.freeSockets).flatMap((sockets) => sockets ?? [])) {
      if (!allows(socket.remoteAddress ?? "")) socket.destroy();
    }
  }
}

/** Connections to servers that wait for their next request, each for the sandbox and name that it was made for. */
export class UpstreamPool {
  readonly #idleMs: number;
  /** by the sandbox's address, then by name, the longest unused first */
  readonly #agents = new Map<string, Map<string, UpstreamAgent>>();

  constructor(idleMs: number) {
    this.#idleMs = idleMs;
  }

  /** The agent for a sandbox's requests to a name, with no free connection that is not allowed now. */
  agentFor(who: { sandbox: string; address: string }, name: string, allows: (address: string) => boolean): Agent {
    let names = this.#agents.get(who.address);
    if (names === undefined) this.#agents.set(who.address, (names = new Map<string, UpstreamAgent>()));
    let agent = names.get(name);
    if (agent !== undefined && agent.sandbox !== who.sandbox) {
      agent.destroy();
      agent = undefined;
    }
    agent ??= new UpstreamAgent(who.sandbox, this.#idleMs);
    names.delete(name);
    names.set(name, agent);
    agent.prune(allows);
    if (names.size > maxNames) dropUnused(names, name);
    return agent;
  }

  /** An agent for one request, which gets a connection of its own. */
  single(who: { sandbox: string }): Agent {
    return new UpstreamAgent(who.sandbox, 0);
  }

  /** Closes the free connections of an address that are not allowed. */
  prune(address: string, allows: (name: string, address: string) => boolean): void {
    for (const [name, agent] of this.#agents.get(address) ?? []) agent.prune((server) => allows(name, server));
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
function dropUnused(names: Map<string, UpstreamAgent>, except: string): void {
  for (const [name, agent] of names) {
    if (agent.busy || name === except) continue;
    agent.destroy();
    names.delete(name);
    return;
  }
}

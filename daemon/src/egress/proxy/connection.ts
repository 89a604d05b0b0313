import { setMaxListeners } from "node:events";
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import type { EgressPolicy, Verdict } from "../../core/egress/egress-policy.js";
import type { Audit, EgressClient, FindClient } from "../egress-client.js";
import { connectTo } from "./host.js";
import { resetSocket } from "./reset-socket.js";
import type { SecretUses } from "./secret-uses.js";

/** What one sandbox has, under one address. */
export class Account {
  readonly sandbox: string;
  readonly connections = new Set<Connection>();
  allowed = 0;
  refused = 0;
  lastLimitAudit = -Infinity;
  /** connections to servers by which its requests go */
  upstreams = 0;

  constructor(sandbox: string) {
    this.sandbox = sandbox;
  }
}

/** Where something goes that is under way. */
export interface Flow {
  /** or the address, where that is what was asked for */
  readonly name: string;
  readonly port: number;
  /** null until one of the name's addresses was chosen */
  address: string | null;
  /** Whether it may go on with the secrets that the sandbox has now; absent or null: whatever they are. */
  readonly suits?: ((client: EgressClient) => boolean) | null;
}

/** What was decided on, apart from what the connection knows itself. */
export interface Decided extends Verdict {
  readonly name: string | null;
  readonly address: string | null;
  /** absent: the port that the connection came to */
  readonly port?: number;
}

/** Which of the listeners it came to: what was to port 80, what was to port 443, or the proxy itself. */
export type ConnectionKind = "http" | "tls" | "proxy";

/** of a sandbox at a time: what 512 clients need, with those that wait for their next request */
const maxUpstreams = 1_024;

/** as the firewall leads them, and programs know the proxy */
export const portOf: Readonly<Record<ConnectionKind, number>> = { http: 80, tls: 443, proxy: 8888 };

export interface ConnectionOptions {
  readonly find: FindClient;
  readonly audit: Audit;
  readonly account: Account;
  readonly address: string;
  readonly kind: ConnectionKind;
  readonly uses: SecretUses;
}

/** One connection of one sandbox, with what hangs on it. It is open until the last of its sockets is closed. */
export class Connection {
  readonly client: Socket;
  /** that it came to */
  readonly port: number;
  /** whether the proxy is its TLS server */
  intercepted = false;
  /** what recheck looks at */
  readonly flows = new Set<Flow>();
  readonly uses: SecretUses;
  readonly #options: ConnectionOptions;
  readonly #sockets = new Set<Duplex>();
  readonly #gone = new AbortController();

  constructor(client: Socket, options: ConnectionOptions) {
    this.client = client;
    this.port = portOf[options.kind];
    this.uses = options.uses;
    this.#options = options;
    options.account.connections.add(this);
    setMaxListeners(0, this.#gone.signal); // one for each request that is under way
    client.once("close", () => this.#gone.abort());
    this.attach(client);
  }

  get sandbox(): string {
    return this.#options.account.sandbox;
  }

  /** the sandbox's, by which it is called */
  get address(): string {
    return this.#options.address;
  }

  /** Aborted when the client is gone. */
  get signal(): AbortSignal {
    return this.#gone.signal;
  }

  /** The sandbox as it is now; null, and all is cut, where it is gone. */
  now(): EgressClient | null {
    const found = this.#options.find(this.address);
    if (found?.sandbox === this.sandbox) return found;
    this.cut();
    return null;
  }

  /** Its policy, in the same way. */
  policy(): EgressPolicy | null {
    return this.now()?.policy ?? null;
  }

  /** Makes a socket part of the connection, so that it is cut and counted with it. */
  attach(socket: Duplex): void {
    this.#sockets.add(socket);
    socket.once("close", () => {
      this.#sockets.delete(socket);
      if (this.#sockets.size === 0) this.#options.account.connections.delete(this);
    });
  }

  /** Counts a connection to a server as the sandbox's, until it closes; false, and it is not, where there are too many. */
  countUpstream(socket: Socket): boolean {
    const { account } = this.#options;
    if (account.upstreams >= maxUpstreams) return false;
    account.upstreams += 1;
    socket.once("close", () => (account.upstreams -= 1));
    return true;
  }

  decide(decided: Decided): void {
    const { account, kind } = this.#options;
    if (decided.allowed) account.allowed += 1;
    else account.refused += 1;
    const { name, address, allowed, rule, port = this.port } = decided;
    this.#options.audit({
      sandbox: account.sandbox,
      kind: kind === "proxy" ? "http" : kind,
      name,
      address,
      port,
      protocol: "tcp",
      allowed,
      rule,
    });
  }

  /** Cuts the connection where something that is under way is no longer allowed, or goes on with secrets that are others now. */
  recheck(): void {
    const client = this.now();
    if (client === null) return;
    for (const flow of this.flows) {
      const { name, port, address } = flow;
      const byName = connectTo(client.policy, flow);
      const verdict = byName.allowed && address !== null ? client.policy.connectResolved(address, port, "tcp") : byName;
      if (verdict.allowed && (flow.suits?.(client) ?? true)) continue;
      if (!verdict.allowed) this.decide({ name, address, port, allowed: false, rule: verdict.rule });
      this.cut();
      return;
    }
  }

  /** By resets, so that nobody takes what came so far for all. */
  cut(): void {
    for (const socket of this.#sockets) resetSocket(socket);
  }
}

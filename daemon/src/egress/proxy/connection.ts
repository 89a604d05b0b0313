import type { Socket } from "node:net";
import type { EgressPolicy, Verdict } from "../../core/egress/egress-policy.js";
import type { Audit, FindClient } from "../egress-client.js";
import { resetSocket } from "./reset-socket.js";

/** What one sandbox has, under one address. */
export class Account {
  readonly sandbox: string;
  readonly connections = new Set<Connection>();
  allowed = 0;
  refused = 0;
  lastLimitAudit = -Infinity;

  constructor(sandbox: string) {
    this.sandbox = sandbox;
  }
}

/** Where something goes that is under way. */
export interface Flow {
  readonly name: string;
  /** null until one of the name's addresses was chosen */
  address: string | null;
}

/** What was decided on, apart from what the connection knows itself. */
export interface Decided extends Verdict {
  readonly name: string | null;
  readonly address: string | null;
}

export interface ConnectionOptions {
  readonly find: FindClient;
  readonly audit: Audit;
  readonly account: Account;
  readonly address: string;
  readonly kind: "http" | "tls";
}

/** One connection of one sandbox, with what hangs on it. It is open until the last of its sockets is closed. */
export class Connection {
  readonly client: Socket;
  readonly port: 80 | 443;
  /** what recheck looks at; null while nothing is under way */
  flow: Flow | null = null;
  readonly #options: ConnectionOptions;
  readonly #sockets = new Set<Socket>();
  readonly #gone = new AbortController();

  constructor(client: Socket, options: ConnectionOptions) {
    this.client = client;
    this.port = options.kind === "http" ? 80 : 443;
    this.#options = options;
    options.account.connections.add(this);
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

  /** The policy as it is now; null, and all is cut, where the sandbox is gone. */
  policy(): EgressPolicy | null {
    const found = this.#options.find(this.address);
    if (found?.sandbox === this.sandbox) return found.policy;
    this.cut();
    return null;
  }

  /** Makes a socket part of the connection, so that it is cut and counted with it. */
  attach(socket: Socket): void {
    this.#sockets.add(socket);
    socket.once("close", () => {
      this.#sockets.delete(socket);
      if (this.#sockets.size === 0) this.#options.account.connections.delete(this);
    });
  }

  decide(decided: Decided): void {
    const { account, kind } = this.#options;
    if (decided.allowed) account.allowed += 1;
    else account.refused += 1;
    const { name, address, allowed, rule } = decided;
    this.#options.audit({
      sandbox: account.sandbox,
      kind,
      name,
      address,
      port: this.port,
      protocol: "tcp",
      allowed,
      rule,
    });
  }

  /** Cuts the connection where what is under way is no longer allowed. */
  recheck(): void {
    const { flow } = this;
    const policy = this.policy();
    if (flow === null || policy === null) return;
    const byName = policy.connectByName(flow.name, this.port, "tcp");
    const verdict =
      byName.allowed && flow.address !== null ? policy.connectResolved(flow.address, this.port, "tcp") : byName;
    if (verdict.allowed) return;
    this.decide({ name: flow.name, address: flow.address, allowed: false, rule: verdict.rule });
    this.cut();
  }

  /** By resets, so that nobody takes what came so far for all. */
  cut(): void {
    for (const socket of this.#sockets) resetSocket(socket);
  }
}

import type { Socket } from "node:net";
import type { Audit, FindClient } from "../egress-client.js";
import { Account, Connection, portOf, type ConnectionKind } from "./connection.js";
import { resetSocket } from "./reset-socket.js";
import type { SecretUses } from "./secret-uses.js";

const limitAuditMs = 1_000;

export interface Counters {
  /** connections that are open now */
  readonly open: number;
  /** connections and requests that were let through since the sandbox's first one */
  readonly allowed: number;
  readonly refused: number;
}

export interface AccountOptions {
  readonly find: FindClient;
  readonly audit: Audit;
  /** connections that one sandbox may have at a time */
  readonly limit: number;
  readonly uses: SecretUses;
}

/** The connections of all sandboxes, by their addresses. */
export class Accounts {
  readonly #options: AccountOptions;
  readonly #accounts = new Map<string, Account>();

  constructor(options: AccountOptions) {
    this.#options = options;
  }

  /** Takes in a new connection; null, and the connection is gone, where nobody has its address or somebody too many connections. */
  admit(socket: Socket, kind: ConnectionKind): Connection | null {
    socket.on("error", () => undefined); // what follows from it hangs on "close"
    const from = socket.remoteAddress;
    const client = from === undefined ? undefined : this.#options.find(from);
    if (client === undefined) {
      resetSocket(socket);
      return null;
    }
    // a sandbox with two addresses has one account
    const { address } = client;
    const account = this.#accountOf(address, client.sandbox);
    if (account.connections.size >= this.#options.limit) {
      resetSocket(socket);
      this.#noteLimit(account, kind);
      return null;
    }
    return new Connection(socket, { ...this.#options, account, address, kind });
  }

  /** Cuts what the policy of an address's sandbox no longer allows. */
  recheck(address: string): void {
    const account = this.#accounts.get(address);
    if (account === undefined) return;
    if (this.#options.find(address)?.sandbox !== account.sandbox) this.forget(address);
    else for (const connection of account.connections) connection.recheck();
  }

  /** Cuts all that an address has, and forgets its figures. */
  forget(address: string): void {
    const account = this.#accounts.get(address);
    if (account === undefined) return;
    this.#accounts.delete(address);
    for (const connection of account.connections) connection.cut();
  }

  forgetAll(): void {
    for (const address of this.#accounts.keys()) this.forget(address);
  }

  counters(address: string): Counters {
    const account = this.#accounts.get(address);
    if (account === undefined) return { open: 0, allowed: 0, refused: 0 };
    return { open: account.connections.size, allowed: account.allowed, refused: account.refused };
  }

  #accountOf(address: string, sandbox: string): Account {
    const known = this.#accounts.get(address);
    if (known?.sandbox === sandbox) return known;
    this.forget(address); // another sandbox had it, and nobody said so
    const account = new Account(sandbox);
    this.#accounts.set(address, account);
    return account;
  }

  #noteLimit(account: Account, kind: ConnectionKind): void {
    account.refused += 1;
    const now = performance.now();
    if (now - account.lastLimitAudit < limitAuditMs) return;
    account.lastLimitAudit = now;
    this.#options.audit({
      sandbox: account.sandbox,
      kind: "connection",
      name: null,
      address: null,
      port: portOf[kind],
      protocol: "tcp",
      allowed: false,
      rule: `more than ${this.#options.limit} connections at a time`,
    });
  }
}

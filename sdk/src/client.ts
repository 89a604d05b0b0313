import { randomBytes } from "node:crypto";

import { Api, type CallOptions } from "./api.js";
import { HttpTransport } from "./http-transport.js";
import type { CollectAnswer, CollectRequest, CreateSandbox, Health, ModuleInfo, SandboxInfo } from "./protocol.js";
import { Sandbox } from "./sandbox.js";
import type { Transport } from "./transport.js";

export type { CallOptions } from "./api.js";
export { ConnectionError } from "./connection-error.js";
export { isSquashError, SquashError } from "./errors.js";
export type * from "./protocol.js";
export { Sandbox, type ExecOptions } from "./sandbox.js";
export type { Transport, TransportReply, TransportRequest } from "./transport.js";

export interface ClientOptions {
  /** `http://host:port`, `https://host:port` or `unix:/path`; @default "http://127.0.0.1:8080" */
  url?: string | undefined;
  /** the daemon's `SQUASH_AUTH_TOKEN`; absent or empty where it has none */
  token?: string | undefined;
  /** milliseconds until an answer must be complete, for all calls but `exec`, which has no limit; @default 60000 */
  timeoutMs?: number | undefined;
  /** in place of `url`: what carries the requests */
  transport?: Transport | undefined;
}

/** What a creation needs; an absent `id` means a random one. */
export type CreateOptions = Omit<CreateSandbox, "id"> & { id?: string } & CallOptions;

/**
 * One daemon's API. Every method throws `SquashError`, whose `code` is the daemon's, when the daemon refuses, `ConnectionError`
 * when it cannot be reached, and the signal's reason when aborted.
 *
 * @example
 * const client = new Client({ url: "unix:/run/squash/api.sock" });
 * await using sandbox = await client.create({ layers: ["000-base-debian"] }); // destroyed when the block ends
 * const { exit_code, stdout } = await sandbox.exec(["python3", "-c", "print(6 * 7)"], { timeout: 5 });
 */
export class Client {
  readonly #api: Api;
  readonly #timeoutMs: number;

  /** Makes no request. Throws `SquashError` "invalid_request" for an address or a token that cannot be used. */
  constructor(options: ClientOptions = {}) {
    const transport = options.transport ?? new HttpTransport(options.url ?? "http://127.0.0.1:8080");
    this.#api = new Api(transport, options.token);
    this.#timeoutMs = options.timeoutMs ?? 60_000;
  }

  /** State of the daemon; needs no token. */
  health(options: CallOptions = {}): Promise<Health> {
    return this.#api.object({ method: "GET", path: "/health", ...this.#bounded(options) });
  }

  /** Modules that sandboxes can be made of, by name. */
  modules(options: CallOptions = {}): Promise<ModuleInfo[]> {
    return this.#api.list({ method: "GET", path: "/v1/modules", ...this.#bounded(options) });
  }

  /** All sandboxes, oldest first. */
  list(options: CallOptions = {}): Promise<SandboxInfo[]> {
    return this.#api.list({ method: "GET", path: "/v1/sandboxes", ...this.#bounded(options) });
  }

  /** One sandbox. Throws `SquashError` "sandbox_not_found". */
  get(id: string, options: CallOptions = {}): Promise<SandboxInfo> {
    return this.sandbox(id).info(options);
  }

  /** Creates a sandbox; returns when it accepts commands. Aborting undoes what was done so far. */
  async create(options: CreateOptions = {}): Promise<Sandbox> {
    const { signal, deadlineMs, ...rest } = options;
    const body: CreateSandbox = { ...rest, id: rest.id ?? randomId() };
    const bounded = this.#bounded({ signal, deadlineMs });
    const created = await this.#api.object<SandboxInfo>({ method: "POST", path: "/v1/sandboxes", body, ...bounded });
    return new Sandbox(this.#api, body.id, { timeoutMs: this.#timeoutMs, created });
  }

  /** A handle on a sandbox that may or may not exist; makes no request. */
  sandbox(id: string): Sandbox {
    return new Sandbox(this.#api, id, { timeoutMs: this.#timeoutMs });
  }

  /** Removes images of snapshots that no sandbox uses; with `dry_run` only says which. */
  collect(request: CollectRequest = {}, options: CallOptions = {}): Promise<CollectAnswer> {
    return this.#api.object({ method: "POST", path: "/v1/gc", body: request, ...options });
  }

  /** The daemon's metrics in Prometheus' text format. */
  metrics(options: CallOptions = {}): Promise<string> {
    return this.#api.text({ method: "GET", path: "/metrics", ...this.#bounded(options) });
  }

  /** Closes idle connections; they do not keep a program from ending. The client can still be used. */
  close(): void {
    this.#api.close();
  }

  #bounded(options: CallOptions): CallOptions {
    return { signal: options.signal, deadlineMs: options.deadlineMs ?? this.#timeoutMs };
  }
}

function randomId(): string {
  return `box-${randomBytes(8).toString("hex")}`;
}

import type { Api, CallOptions } from "./api.js";
import { isSquashError, SquashError } from "./errors.js";
import type {
  DiffAnswer,
  DiffFileAnswer,
  DiffRequest,
  ExecRequest,
  ExecResult,
  ForkRequest,
  GrantRequest,
  HistoryEntry,
  JobInfo,
  NetworkDecision,
  NetworkInfo,
  NetworkRequest,
  PromoteRequest,
  RetentionAnswer,
  RetentionRequest,
  SandboxInfo,
  SnapshotAnswer,
  SnapshotRequest,
  StackRequest,
} from "./protocol.js";

/** How a command runs; `timeout` bounds the command, `deadlineMs` (none by default) the wait for its result. */
export type ExecOptions = Omit<ExecRequest, "cmd"> & CallOptions;

/** How a snapshot is taken; with `wait` it is answered once the bucket has it, and a failure to send it leaves it here. */
export type SnapshotOptions = CallOptions & { wait?: "durable" };

type DiffSides = Omit<DiffRequest, "limit">;

/** A handle on one sandbox. Holds no connection; `await using` destroys the sandbox when the block ends. */
export class Sandbox {
  readonly id: string;
  /** what the daemon answered to the creation; absent on handles that `Client.sandbox` made */
  readonly created: SandboxInfo | undefined;
  readonly #api: Api;
  readonly #timeoutMs: number | undefined;

  /** Use `Client.create` or `Client.sandbox`. Throws `SquashError` "invalid_request" for an empty id. */
  constructor(api: Api, id: string, options: { timeoutMs?: number | undefined; created?: SandboxInfo } = {}) {
    if (id === "") throw new SquashError("invalid_request", "Cannot address a sandbox: its id is empty");
    this.#api = api;
    this.id = id;
    this.#timeoutMs = options.timeoutMs;
    this.created = options.created;
  }

  /**
   * Runs a command to its end. A string is a shell command with the login environment, an array a program with its arguments.
   * A command that fails, is killed or times out is a result; throws `SquashError` when it could not be started. Aborting kills it.
   */
  exec(cmd: string | readonly string[], options: ExecOptions = {}): Promise<ExecResult> {
    const { signal, deadlineMs, ...rest } = options;
    const body: ExecRequest = { cmd: typeof cmd === "string" ? cmd : [...cmd], ...rest };
    return this.#api.object({ method: "POST", path: `${this.#path}/exec`, body, signal, deadlineMs });
  }

  /** Its present state. Throws `SquashError` "sandbox_not_found". */
  info(options: CallOptions = {}): Promise<SandboxInfo> {
    return this.#api.object({ method: "GET", path: this.#path, ...this.#bounded(options) });
  }

  /** Results of all finished commands, by `seq`. */
  logs(options: CallOptions = {}): Promise<ExecResult[]> {
    return this.#api.list({ method: "GET", path: `${this.#path}/logs`, ...this.#bounded(options) });
  }

  /** What it may reach, and its figures. Throws `SquashError` "network_off" where the daemon gives sandboxes no network. */
  network(options: CallOptions = {}): Promise<NetworkInfo> {
    return this.#api.object({ method: "GET", path: `${this.#path}/network`, ...this.#bounded(options) });
  }

  /** Replaces what it may reach; returns when connections that are not allowed any more have been cut. */
  setNetwork(network: NetworkRequest, options: CallOptions = {}): Promise<NetworkInfo> {
    const call = { method: "PUT", path: `${this.#path}/network`, body: network } as const;
    return this.#api.object({ ...call, ...this.#bounded(options) });
  }

  /** Replaces which secrets it may use, null for all; when this returns, connections that were given another one have been cut. */
  setSecrets(secrets: readonly string[] | null, options: CallOptions = {}): Promise<SandboxInfo> {
    const body: GrantRequest = { secrets: secrets === null ? null : [...secrets] };
    return this.#api.object({ method: "PUT", path: `${this.#path}/secrets`, body, ...this.#bounded(options) });
  }

  /** The newest decisions on what it wanted to reach, oldest first: 200, or `limit`, at most 1,000. Also after its end. */
  networkLog(options: CallOptions & { readonly limit?: number } = {}): Promise<NetworkDecision[]> {
    const query = options.limit === undefined ? "" : `?limit=${options.limit}`;
    return this.#api.list({ method: "GET", path: `${this.#path}/network/log${query}`, ...this.#bounded(options) });
  }

  /** Keeps its present files under a label (the time, without one). What runs in it goes on afterwards. Throws `SquashError` "snapshot_exists". */
  snapshot(request: SnapshotRequest = {}, options: SnapshotOptions = {}): Promise<SnapshotAnswer> {
    const { wait, ...rest } = options;
    const query = wait === undefined ? "" : `?wait=${wait}`;
    return this.#api.object({ method: "POST", path: `${this.#path}/snapshot${query}`, body: request, ...rest });
  }

  /** Brings files and modules of a snapshot back, exactly. Throws `SquashError` "sandbox_busy" when something runs, unless told what to do. */
  restore(label: string, stack: StackRequest = {}, options: CallOptions = {}): Promise<SandboxInfo> {
    return this.#api.object({ method: "POST", path: `${this.#path}/restore`, body: { label, ...stack }, ...options });
  }

  /** Adds a module to its stack; what was written stays. Throws as `restore` does. */
  activate(module: string, stack: StackRequest = {}, options: CallOptions = {}): Promise<SandboxInfo> {
    return this.#api.object({ method: "POST", path: `${this.#path}/activate`, body: { module, ...stack }, ...options });
  }

  /** Takes a module away; what was written stays. Throws as `restore` does. */
  deactivate(module: string, stack: StackRequest = {}, options: CallOptions = {}): Promise<SandboxInfo> {
    const body = { module, ...stack };
    return this.#api.object({ method: "POST", path: `${this.#path}/deactivate`, body, ...options });
  }

  /** Creates sandboxes with the same stack, limits, policy and files, of now or of a snapshot: all or none. Returns handles on them. */
  async fork(request: ForkRequest = {}, options: CallOptions = {}): Promise<Sandbox[]> {
    const path = `${this.#path}/fork`;
    const made = await this.#api.list<SandboxInfo>({ method: "POST", path, body: request, ...options });
    return made.map((created) => new Sandbox(this.#api, created.id, { timeoutMs: this.#timeoutMs, created }));
  }

  /** Its snapshots, oldest first. */
  history(options: CallOptions = {}): Promise<HistoryEntry[]> {
    return this.#api.list({ method: "GET", path: `${this.#path}/history`, ...this.#bounded(options) });
  }

  /**
   * What differs between two states of its files: by default between the snapshot taken or restored last (or its modules alone) and now. Nothing
   * runs in it for the moment in which its present files are kept. Throws `SquashError` "snapshot_not_found".
   */
  diff(request: DiffRequest = {}, options: CallOptions = {}): Promise<DiffAnswer> {
    return this.#api.object({ method: "GET", path: this.#diffPath({ ...request }), ...options });
  }

  /** What differs in one file, as a unified diff if it is a text; a path that is no UTF-8 is given as bytes. Throws `SquashError` "path_not_found". */
  diffFile(path: string | Uint8Array, request: DiffSides = {}, options: CallOptions = {}): Promise<DiffFileAnswer> {
    const which = typeof path === "string" ? { path } : { path_base64: btoa(String.fromCharCode(...path)) };
    return this.#api.object({ method: "GET", path: this.#diffPath({ ...request, ...which }), ...options });
  }

  /** A tar file of what is new or changed, in the format of an OCI layer: what is gone is an empty file with `.wh.` before its name. */
  diffTar(request: DiffSides = {}, options: CallOptions = {}): Promise<AsyncIterable<Uint8Array>> {
    return this.#api.bytes({ method: "GET", path: this.#diffPath({ ...request, format: "tar" }), ...options });
  }

  /** Forgets a snapshot; those that were taken after it stay whole. Throws `SquashError` "snapshot_not_found". */
  async deleteSnapshot(label: string, options: CallOptions = {}): Promise<void> {
    const path = `${this.#path}/snapshots/${encodeURIComponent(label)}`;
    await this.#api.text({ method: "DELETE", path, ...this.#bounded(options) });
  }

  /** Pins a snapshot, so that it stays whatever the retention says, or the contrary. Throws `SquashError` "snapshot_not_found". */
  pinSnapshot(label: string, pinned = true, options: CallOptions = {}): Promise<HistoryEntry> {
    const path = `${this.#path}/snapshots/${encodeURIComponent(label)}`;
    return this.#api.object({ method: "PUT", path, body: { pinned }, ...this.#bounded(options) });
  }

  /** Says which snapshots stay; those that do not go at once. What is absent is the daemon's to say. */
  setRetention(request: RetentionRequest, options: CallOptions = {}): Promise<RetentionAnswer> {
    return this.#api.object({
      method: "PUT",
      path: `${this.#path}/retention`,
      body: request,
      ...this.#bounded(options),
    });
  }

  /** Begins to make a module of a snapshot, which stands on the modules that the snapshot stands on; follow the job with `Client.watchJob`. */
  promote(request: PromoteRequest, options: CallOptions = {}): Promise<JobInfo> {
    return this.#api.object({
      method: "POST",
      path: `${this.#path}/promote`,
      body: request,
      ...this.#bounded(options),
    });
  }

  /** Destroys it; returns when nothing of it is left. Throws `SquashError` "sandbox_not_found". */
  async destroy(options: CallOptions = {}): Promise<void> {
    await this.#api.text({ method: "DELETE", path: this.#path, ...this.#bounded(options) });
  }

  /** As `destroy`, but one that does not exist any more is fine. */
  async [Symbol.asyncDispose](): Promise<void> {
    try {
      await this.destroy();
    } catch (error) {
      if (!isSquashError(error) || error.code !== "sandbox_not_found") throw error;
    }
  }

  #diffPath(query: Readonly<Record<string, string | number | undefined>>): string {
    const said = new URLSearchParams();
    for (const [key, value] of Object.entries(query)) if (value !== undefined) said.set(key, String(value));
    const text = said.toString();
    return `${this.#path}/diff${text === "" ? "" : `?${text}`}`;
  }

  get #path(): string {
    return `/v1/sandboxes/${encodeURIComponent(this.id)}`;
  }

  #bounded(options: CallOptions): CallOptions {
    return { signal: options.signal, deadlineMs: options.deadlineMs ?? this.#timeoutMs };
  }
}

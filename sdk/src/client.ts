import { randomBytes } from "node:crypto";

import { Api, type CallOptions } from "./api.js";
import { SquashError } from "./errors.js";
import { HttpTransport } from "./http-transport.js";
import { jobEvents } from "./job-events.js";
import type {
  AuthorityInfo,
  CollectAnswer,
  CollectRequest,
  CreateSandbox,
  Health,
  JobInfo,
  JobRequest,
  ModuleInfo,
  QueueEntryInfo,
  RemoteModuleInfo,
  RemoteSnapshotInfo,
  RemoteStatus,
  SandboxInfo,
  SecretAuditEntry,
  SecretAuditQuery,
  SecretInfo,
  SecretList,
  SecretRequest,
} from "./protocol.js";
import { Sandbox } from "./sandbox.js";
import type { Transport } from "./transport.js";

export type { CallOptions } from "./api.js";
export { ConnectionError } from "./connection-error.js";
export { isSquashError, SquashError } from "./errors.js";
export type * from "./protocol.js";
export { Sandbox, type ExecOptions } from "./sandbox.js";
export type { Transport, TransportReply, TransportRequest, TransportStream } from "./transport.js";

const pollMs = 500;

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

/** Bytes that are sent. */
export interface Upload {
  content: AsyncIterable<Uint8Array>;
  /** bytes in all, where that is known */
  size?: number;
  /** 64 hexadecimal digits, what they are */
  sha256: string;
}

/** How an image is taken. */
export interface PutOptions extends CallOptions {
  /** whether a module of that name may be replaced; @default false */
  replace?: boolean;
  /** modules that a stack with this one must have; @default of an image what it says of itself, else none */
  requires?: readonly string[];
  /** modules that it must not have; @default as `requires` */
  conflicts?: readonly string[];
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

  /** One module. Throws `SquashError` "module_not_found". */
  module(name: string, options: CallOptions = {}): Promise<ModuleInfo> {
    return this.#api.object({ method: "GET", path: modulePath(name), ...this.#bounded(options) });
  }

  /** Removes a module. Throws `SquashError` "module_in_use", with the ids of the sandboxes that use it. */
  async removeModule(name: string, options: CallOptions = {}): Promise<void> {
    await this.#api.text({ method: "DELETE", path: modulePath(name), ...this.#bounded(options) });
  }

  /** Makes the images of a module trusted that somebody put into the daemon's directory by hand. */
  trustModule(name: string, options: CallOptions = {}): Promise<ModuleInfo> {
    return this.#api.object({ method: "POST", path: `${modulePath(name)}/trust`, ...this.#bounded(options) });
  }

  /** Sends an image, without a limit of time unless `deadlineMs` says so. Throws `SquashError` "module_exists", "digest_mismatch" and others. */
  putModule(name: string, image: Upload, options: PutOptions = {}): Promise<ModuleInfo> {
    const { signal, deadlineMs } = options;
    const path = `${modulePath(name)}?${uploadQuery(image, options)}`;
    return this.#api.object({ method: "PUT", path, bytes: image, signal, deadlineMs });
  }

  /** Begins work in the background, such as the making of a module. Returns at once. */
  startJob(request: JobRequest, options: CallOptions = {}): Promise<JobInfo> {
    return this.#api.object({ method: "POST", path: "/v1/jobs", body: request, ...this.#bounded(options) });
  }

  /** Sends a tar file, plain or packed by gzip, xz or zstd, of which a job then makes a module. No limit of time unless `deadlineMs` says so. */
  startTarJob(name: string, tar: Upload, options: PutOptions = {}): Promise<JobInfo> {
    const { signal, deadlineMs } = options;
    const path = `/v1/jobs/from-tar?${uploadQuery(tar, options)}&name=${encodeURIComponent(name)}`;
    return this.#api.object({ method: "POST", path, bytes: tar, signal, deadlineMs });
  }

  /** Which bucket modules and snapshots are kept in, and how far it has what is here. */
  bucket(options: CallOptions = {}): Promise<RemoteStatus> {
    return this.#api.object({ method: "GET", path: "/v1/s3", ...this.#bounded(options) });
  }

  /** What is still to be done in the bucket. Throws `SquashError` "s3_off", as those do that follow. */
  bucketQueue(options: CallOptions = {}): Promise<QueueEntryInfo[]> {
    return this.#api.list({ method: "GET", path: "/v1/s3/queue", ...this.#bounded(options) });
  }

  /** Modules in the bucket. */
  bucketModules(options: CallOptions = {}): Promise<RemoteModuleInfo[]> {
    return this.#api.list({ method: "GET", path: "/v1/s3/modules", ...this.#bounded(options) });
  }

  /** Snapshots in the bucket, of one sandbox or of all. */
  bucketSnapshots(id?: string, options: CallOptions = {}): Promise<RemoteSnapshotInfo[]> {
    const query = id === undefined ? "" : `?id=${encodeURIComponent(id)}`;
    return this.#api.list({ method: "GET", path: `/v1/s3/snapshots${query}`, ...this.#bounded(options) });
  }

  /** Takes a module out of the bucket; machines that have it keep it. */
  async removeBucketModule(name: string, options: CallOptions = {}): Promise<void> {
    const path = `/v1/s3/modules/${encodeURIComponent(name)}`;
    await this.#api.text({ method: "DELETE", path, ...this.#bounded(options) });
  }

  /** Takes all that there is of a sandbox out of the bucket. Throws `SquashError` "sandbox_leased" where it runs, in ephemeral mode. */
  async removeBucketSandbox(id: string, options: CallOptions = {}): Promise<void> {
    const path = `/v1/s3/sandboxes/${encodeURIComponent(id)}`;
    await this.#api.text({ method: "DELETE", path, ...this.#bounded(options) });
  }

  /** Takes a snapshot out of the bucket; a machine that has it keeps it. */
  async removeBucketSnapshot(id: string, label: string, options: CallOptions = {}): Promise<void> {
    const path = `/v1/s3/snapshots/${encodeURIComponent(id)}/${encodeURIComponent(label)}`;
    await this.#api.text({ method: "DELETE", path, ...this.#bounded(options) });
  }

  /** Jobs, newest first. */
  jobs(options: CallOptions = {}): Promise<JobInfo[]> {
    return this.#api.list({ method: "GET", path: "/v1/jobs", ...this.#bounded(options) });
  }

  /** One job. Throws `SquashError` "job_not_found". */
  job(id: string, options: CallOptions = {}): Promise<JobInfo> {
    return this.#api.object({ method: "GET", path: jobPath(id), ...this.#bounded(options) });
  }

  /** Cancels a job, and returns when it has ended; one that is over is taken off the list. */
  async removeJob(id: string, options: CallOptions = {}): Promise<void> {
    await this.#api.text({ method: "DELETE", path: jobPath(id), ...this.#bounded(options) });
  }

  /** The states of a job as they come, the last one when it is over. Asks again and again where the daemon cannot be listened to. */
  async *watchJob(id: string, options: Pick<CallOptions, "signal"> = {}): AsyncGenerator<JobInfo> {
    const { signal } = options;
    const stream = await this.#api.stream({ method: "GET", path: `${jobPath(id)}/events`, signal });
    for await (const job of stream === null ? [] : jobEvents(stream)) {
      yield job;
      if (isOver(job)) return;
    }
    for (;;) {
      signal?.throwIfAborted();
      const job = await this.job(id, { signal });
      yield job;
      if (isOver(job)) return;
      await new Promise((done) => setTimeout(done, pollMs));
    }
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

  /** Secrets without their values, by name, and what is wrong with their file. */
  secrets(options: CallOptions = {}): Promise<SecretList> {
    return this.#api.object({ method: "GET", path: "/v1/secrets", ...this.#bounded(options) });
  }

  /** Makes a secret, or replaces one; in force when this returns. The value goes in, and comes out of no call. */
  putSecret(name: string, secret: SecretRequest, options: CallOptions = {}): Promise<SecretInfo> {
    return this.#api.object({ method: "PUT", path: secretPath(name), body: secret, ...this.#bounded(options) });
  }

  /** Removes a secret; when this returns, it is sent nowhere any more. Throws `SquashError` "secret_not_found", "secret_in_use". */
  async removeSecret(name: string, options: CallOptions = {}): Promise<void> {
    await this.#api.text({ method: "DELETE", path: secretPath(name), ...this.#bounded(options) });
  }

  /** Encrypts the file of secrets with another key. Throws `SquashError` "invalid_request" where it is not encrypted. */
  async rekeySecrets(options: CallOptions = {}): Promise<void> {
    await this.#api.text({ method: "POST", path: "/v1/secrets/rekey", ...this.#bounded(options) });
  }

  /** The newest requests with placeholders of secrets, oldest first. */
  secretAudit(options: SecretAuditQuery & CallOptions = {}): Promise<SecretAuditEntry[]> {
    const { sandbox, secret, verdict, limit } = options;
    const search = new URLSearchParams();
    for (const [name, value] of Object.entries({ sandbox, secret, verdict, limit }))
      if (value !== undefined) search.set(name, String(value));
    const query = search.toString();
    const path = `/v1/secrets/audit${query === "" ? "" : `?${query}`}`;
    return this.#api.list({ method: "GET", path, ...this.#bounded(options) });
  }

  /** The certificate authority that new sandboxes trust. Throws `SquashError` "network_off" where the daemon gives sandboxes no network. */
  ca(options: CallOptions = {}): Promise<AuthorityInfo> {
    return this.#api.object({ method: "GET", path: "/v1/ca", ...this.#bounded(options) });
  }

  /** Makes another one. Sandboxes that trust the old one go on with it. */
  rotateCa(options: CallOptions = {}): Promise<AuthorityInfo> {
    return this.#api.object({ method: "POST", path: "/v1/ca/rotate", ...this.#bounded(options) });
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

function uploadQuery(upload: Upload, { replace = false, requires, conflicts }: PutOptions): string {
  const query = new URLSearchParams({ sha256: upload.sha256 });
  if (replace) query.set("replace", "true");
  if (requires !== undefined) query.set("requires", requires.join(","));
  if (conflicts !== undefined) query.set("conflicts", conflicts.join(","));
  return query.toString();
}

function isOver({ state }: JobInfo): boolean {
  return state !== "queued" && state !== "running";
}

function jobPath(id: string): string {
  if (id === "") throw new SquashError("invalid_request", "Cannot address a job: its id is empty");
  return `/v1/jobs/${encodeURIComponent(id)}`;
}

function secretPath(name: string): string {
  if (name === "") throw new SquashError("invalid_request", "Cannot address a secret: its name is empty");
  return `/v1/secrets/${encodeURIComponent(name)}`;
}

function modulePath(name: string): string {
  if (name === "") throw new SquashError("invalid_request", "Cannot address a module: its name is empty");
  return `/v1/modules/${encodeURIComponent(name)}`;
}

function randomId(): string {
  return `box-${randomBytes(8).toString("hex")}`;
}

/**
 * The wire contract: every shape that crosses the HTTP API, as plain data. The daemon's schemas are checked against these
 * types by the compiler. Times are RFC 3339 UTC strings, sizes are bytes unless a name says otherwise.
 */

/** Every stable error code, with the HTTP status that carries it. Append only. */
export const errorStatus = {
  /** a field is missing, misspelt or out of range */
  invalid_request: 400,
  /** the Authorization header is missing or wrong */
  unauthorized: 401,
  /** no such route */
  not_found: 404,
  /** the route exists, the method does not */
  method_not_allowed: 405,
  /** the body is not `application/json` */
  unsupported_media_type: 415,
  /** the body is larger than 1 MiB */
  body_too_large: 413,
  /** the request did not arrive in time */
  request_timeout: 408,
  sandbox_not_found: 404,
  sandbox_exists: 409,
  /** the sandbox is in a state that does not allow this, such as `lost` */
  sandbox_not_ready: 409,
  /** `SQUASH_MAX_SANDBOXES` is reached */
  sandbox_limit: 503,
  module_not_found: 400,
  /** the image is damaged, truncated, not the one of its manifest, or of a kind that this kernel cannot mount */
  module_invalid: 400,
  /** a stage of the creation failed; nothing of it is left */
  create_failed: 500,
  /** the stack could not be changed; the old one is back */
  change_failed: 500,
  /** commands or processes run, and the request does not say to kill them or to wait; `details` lists them */
  sandbox_busy: 409,
  snapshot_not_found: 404,
  snapshot_exists: 409,
  /** the sandbox has as many snapshots as it may */
  snapshot_limit: 409,
  /** neither side of a comparison has that path */
  path_not_found: 404,
  /** the files could not be compared, or what differs is too much, or cannot be said in that format */
  diff_failed: 500,
  /** as many comparisons run as may; ask again */
  diff_limit: 503,
  /** the files could not be captured; nothing of the snapshot is left */
  snapshot_failed: 500,
  /** the module is in the stack already */
  module_active: 409,
  /** the module is not in the stack */
  module_not_active: 409,
  /** this squashd has no network for sandboxes */
  network_off: 409,
  /** the command could not be started at all */
  exec_failed: 500,
  /** the sandbox did not answer as its init must */
  sandbox_broken: 502,
  /** the kernel refused an operation */
  kernel: 500,
  /** squashd is shutting down */
  shutting_down: 503,
  /** a builder failed */
  build_failed: 500,
  /** the caller went away */
  cancelled: 499,
  /** a bug; the text is only in the daemon's log */
  internal: 500,
  /** there is a module of that name, and it was not asked to be replaced */
  module_exists: 409,
  /** sandboxes use the module, or somebody else is changing it */
  module_in_use: 409,
  /** modules that conflict with each other */
  module_conflict: 409,
  /** a module that another one requires is missing from the stack */
  module_requires: 400,
  /** what was sent is not what its digest says */
  digest_mismatch: 400,
  job_not_found: 404,
  /** too many jobs or uploads wait already */
  job_limit: 503,
} as const satisfies Readonly<Record<string, number>>;

/** What happened, in one stable word. */
export type ErrorCode = keyof typeof errorStatus;

/** Body of every answer that is not a success. */
export interface ErrorBody {
  /** what happened, where, and what to do, for a person */
  error: string;
  /** the same for a program */
  code: ErrorCode;
  /** facts about the failure, such as the stage at which a create failed */
  details?: Record<string, unknown>;
}

/**
 * `creating` → `ready` → `destroying`; `recovering` while a dead one is rebuilt; `lost` when the writable layer did not survive;
 * `failed` when rebuilding did not work (`reason` says why). Only `ready` accepts commands; all can be destroyed.
 */
export type SandboxState = "creating" | "ready" | "recovering" | "lost" | "failed" | "destroying";

/** One sandbox, as every route shows it. */
export interface SandboxInfo {
  id: string;
  state: SandboxState;
  /** why the state is `lost` or `failed`, or what ended the last life of the sandbox */
  reason: string | null;
  owner: string;
  task: string;
  /** module names, topmost first */
  layers: string[];
  backend: "cell";
  created: string;
  last_active: string;
  /** whether its files are mounted, that is, whether it can run commands */
  mounted: boolean;
  exec_count: number;
  /** commands that run at this moment */
  running: number;
  /** bytes used in the writable layer; 0 where unknown */
  upper_bytes: number;
  upper_limit_bytes: number;
  snapshots: SnapshotInfo[];
  /** label of the snapshot that was restored last */
  active_snapshot: string | null;
  /** the sandbox that it was forked from, as `id` or `id@label` */
  forked_from: string | null;
  /** cores */
  cpu: number;
  memory_mb: number;
  /** processes and threads together */
  pids: number;
  /** seconds from `created` after which it is destroyed; 0 = never */
  max_lifetime_s: number;
  /** as asked for; null and `[]` are everything public */
  allow_net: string[] | null;
  deny_net: string[];
  net_limits: NetLimits;
  /** its IPv4 address; null where it has none */
  address: string | null;
  /** its IPv6 address; null where sandboxes have none */
  address6: string | null;
  /** processes that the kernel killed for lack of memory */
  oom_kills: number;
  /** times it was rebuilt after its processes had died */
  restarts: number;
  /** path of its cgroup (v2) or of its memory cgroup (v1) on the host; null while it has none */
  cgroup: string | null;
  /** process id of its init on the host; null while it has none */
  pid: number | null;
}

export interface SnapshotInfo {
  label: string;
  created: string;
  /** bytes of its image */
  size: number;
}

/** Body of `POST /v1/sandboxes/:id/snapshot`. */
export interface SnapshotRequest {
  /** as module names; @default the time in UTC, as `20260131-235959` */
  label?: string;
}

export interface SnapshotAnswer {
  snapshot: string;
  size: number;
  /** milliseconds for which nothing ran in the sandbox */
  paused_ms: number;
}

/** What happens to commands and processes that run when a stack is changed: none survives it. */
export type RunningPolicy = "refuse" | "kill" | "wait";

/** Common to all requests that change a stack. */
export interface StackRequest {
  /** @default "refuse" */
  running?: RunningPolicy;
  /** seconds to wait for them, 1–3600; only with `running` "wait"; @default 300 */
  timeout?: number;
}

/** Body of `POST /v1/sandboxes/:id/restore`. */
export interface RestoreRequest extends StackRequest {
  label: string;
}

/** Body of `POST /v1/sandboxes/:id/activate` and `…/deactivate`. */
export interface ModuleRequest extends StackRequest {
  module: string;
}

/** Body of `POST /v1/sandboxes/:id/fork`: of `target_id` and `count` one at most. */
export interface ForkRequest {
  /** id of the one fork */
  target_id?: string;
  /** forks with ids that are made up, 1–100; @default 1 */
  count?: number;
  /** label of a snapshot; @default the present */
  from?: string;
}

/** One snapshot in the answer of `GET /v1/sandboxes/:id/history`. */
export interface HistoryEntry extends SnapshotInfo {
  /** what it was taken after; null at the beginning */
  parent: string | null;
  /** module names then, topmost first */
  layers: string[];
  /** images that make up its files, its own included */
  depth: number;
  /** whether it was restored last */
  active: boolean;
}

/** Body of `POST /v1/gc`. */
export interface CollectRequest {
  /** only says what would go; @default false */
  dry_run?: boolean;
}

export interface CollectAnswer {
  /** images of snapshots that no sandbox uses */
  images: string[];
  /** freed, or to be freed; 0 for a dry run */
  bytes: number;
}

/** Body of `POST /v1/sandboxes`. */
export interface CreateSandbox {
  /** 1–64 of A–Z a–z 0–9 `_` `-`, not starting or ending with `-` */
  id: string;
  /** @default "anon" */
  owner?: string;
  /** module names, as an array or separated by commas; @default `SQUASH_DEFAULT_LAYERS` */
  layers?: string[] | string;
  task?: string;
  /** cores, 0.01–1024; @default 2 */
  cpu?: number;
  /** 16–1,048,576; @default 1024 */
  memory_mb?: number;
  /** processes and threads together, 8–1,000,000; @default 1024 */
  pids?: number;
  /** seconds; 0 = unlimited, the default */
  max_lifetime_s?: number;
  /**
   * destinations that may be reached: host names, `*.example.org`, addresses and CIDRs, each with optional `:port` or `:port/udp`; `["none"]`
   * = nothing at all; absent, null or `[]` = everything public
   */
  allow_net?: string[] | null;
  /** destinations that may not be reached; the most precise entry of both lists decides, between equals this list */
  deny_net?: string[];
  net_limits?: NetLimits;
  /** whether commands may make user namespaces of their own; @default false */
  nested_userns?: boolean;
}

/** Limits of a sandbox's network; an absent field is no limit. */
export interface NetLimits {
  /** towards the sandbox, in 1,000 bits a second, 64–100,000,000 */
  down_kbit?: number;
  /** from the sandbox */
  up_kbit?: number;
  /** new connections a second, 1–100,000 */
  connections_per_s?: number;
}

/** Body of `PUT /v1/sandboxes/:id/network`: everything is replaced. */
export interface NetworkRequest {
  /** as for a creation, but it must be said, so that nothing is opened by forgetting it */
  allow_net: string[] | null;
  deny_net?: string[];
  net_limits?: NetLimits;
}

/** What a sandbox may reach, and what it has done with it since its cell was made. */
export interface NetworkInfo {
  allow_net: string[] | null;
  deny_net: string[];
  net_limits: NetLimits;
  address: string;
  /** null where sandboxes have no IPv6 */
  address6: string | null;
  /** also its name server */
  gateway: string;
  sent_bytes: number;
  sent_packets: number;
  received_bytes: number;
  received_packets: number;
  /** connections that the host tracks at this moment */
  connections_open: number;
  /** connections that the proxy, and packets that the firewall refused */
  connections_refused: number;
  dns_allowed: number;
  dns_refused: number;
  /** queries beyond the rate limit, which were not answered */
  dns_limited: number;
}

/** One decision in the audit log. Not every packet has one: floods are logged in part. */
export interface NetworkDecision {
  time: string;
  sandbox: string;
  /** who decided: the resolver, the proxy for HTTP or TLS, or the firewall */
  kind: "dns" | "http" | "tls" | "connection";
  name: string | null;
  address: string | null;
  port: number | null;
  protocol: "tcp" | "udp" | "icmp" | "other";
  verdict: "allowed" | "refused";
  /** the entry that decided, or the reason */
  rule: string;
}

/** Body of `POST /v1/sandboxes/:id/exec`. */
export interface ExecRequest {
  /** a shell command with the login environment, or a program with its arguments; at most 64 KiB */
  cmd: string | string[];
  /** absolute path; @default what the modules say that are of container images, else "/" */
  workdir?: string;
  /** seconds, 1–3600; a numeric string is accepted; @default 300 */
  timeout?: number | string;
  /** text for the command's standard input, which is empty otherwise */
  stdin?: string;
  /** added to the clean environment, and to what such modules say */
  env?: Record<string, string>;
  /** user name or uid inside the sandbox; @default what such modules say, else "root" */
  user?: string | number;
}

/** What a command did. A command that fails is still a success of the API. */
export interface ExecResult {
  /** number of this command in the life of the sandbox, from 1 */
  seq: number;
  cmd: string | string[];
  workdir: string;
  /** the command's status; 124 timed out, 125 could not be set up, 126/127 not executable/found, 128+N killed by signal N */
  exit_code: number;
  started: string;
  finished: string;
  duration_ms: number;
  /** the first 64 KiB, invalid UTF-8 replaced */
  stdout: string;
  stderr: string;
  stdout_truncated: boolean;
  stderr_truncated: boolean;
  timed_out: boolean;
  /** whether the kernel killed something in the sandbox for lack of memory meanwhile */
  oom_killed: boolean;
}

export type ModuleFormat = "squashfs" | "erofs";

/** One module, as every route shows it. */
export interface ModuleInfo {
  name: string;
  /** bytes of the image; 0 for remote ones */
  size: number;
  location: "local" | "remote";
  /** of the image that a sandbox would get */
  format: ModuleFormat;
  /** of all its images that this machine can use */
  formats: ModuleFormat[];
  /** of that image, by its manifest; null where it has none */
  sha256: string | null;
  created: string | null;
  /** what made it, such as `mkbase debian` */
  source: string | null;
  /** modules that a stack with this one must have */
  requires: string[];
  /** modules that it must not have */
  conflicts: string[];
  /** ids of the sandboxes that use it */
  used_by: string[];
  /** why it cannot be used, and what to do; null where nothing is known against it */
  problem: string | null;
}

/** What a job that makes a module may say about it. */
interface ModuleJob {
  /** of the module; @default the builder's own, where it has one */
  name?: string;
  /** whether a module of that name may be replaced, unless sandboxes use it; @default false */
  replace?: boolean;
  /** images that are made; @default both */
  formats?: ModuleFormat[];
  /** modules that a stack with this one must have */
  requires?: string[];
  /** modules that it must not have */
  conflicts?: string[];
}

/** A base of a distribution, or of BusyBox alone. */
export interface MkbaseJob extends ModuleJob {
  kind: "mkbase";
  base: "busybox" | "debian" | "alpine" | "ubuntu" | "void";
  /** code name, for debian */
  release?: string;
  /** for debian, instead of the usual ones */
  packages?: string[];
  /** of the root file system, for alpine, ubuntu and void; with `sha256` */
  url?: string;
  sha256?: string;
}

/** The files of a directory on the daemon's machine, which must lie below one of `SQUASH_BUILD_DIRS`. */
export interface FromDirJob extends ModuleJob {
  kind: "from-dir";
  name: string;
  path: string;
}

/** The files of a tar file on a server: plain, or packed by gzip, xz or zstd. */
export interface FromTarJob extends ModuleJob {
  kind: "from-tar";
  name: string;
  url: string;
  sha256: string;
}

/** Another image of a module. */
export interface ConvertJob {
  kind: "convert";
  name: string;
  format: ModuleFormat;
}

/** Body of `POST /v1/jobs`. */
export type JobRequest = MkbaseJob | FromDirJob | FromTarJob | ConvertJob;

export type JobState = "queued" | "running" | "done" | "failed" | "cancelled";

/** Work that goes on in the background. */
export interface JobInfo {
  id: string;
  kind: JobRequest["kind"];
  /** what it makes or changes */
  module: string;
  state: JobState;
  /** what it is doing at this moment */
  step: string;
  /** how much of it is done, from 0 to 1; null where that is not known */
  fraction: number | null;
  /** the newest steps, oldest first, at most 50 */
  lines: string[];
  created: string;
  started: string | null;
  finished: string | null;
  /** why it failed */
  error: string | null;
  code: ErrorCode | null;
}

export interface Health {
  status: "ok" | "degraded";
  backend: "cell";
  version: string;
  tailscale: { status: "off"; ip: null };
  sandboxes: number;
  modules: number;
  /** whether any `000-*` module is there */
  base_ready: boolean;
  /** cells that wait, and how many are kept */
  pool: { ready: number; size: number };
  uptime_s: number;
}

/** One line of `sq doctor`. */
export interface DoctorCheck {
  name: string;
  ok: boolean;
  /** whether squashd cannot work without it */
  required: boolean;
  /** what was found, and what to do where it is missing */
  detail: string;
}

export type DiffFileType = "fifo" | "character" | "directory" | "block" | "file" | "symlink" | "socket";

export type DiffChange = "mode" | "owner" | "mtime" | "xattrs" | "content" | "type";

/** One path that differs. */
export interface DiffEntry {
  /** from "/" on; bytes that are no UTF-8 are U+FFFD */
  path: string;
  /** the path's bytes, only where `path` cannot say them */
  path_base64?: string;
  /** of the newer side, or of the older where there is no newer */
  type: DiffFileType;
  /** only where it is another one than before */
  old_type?: DiffFileType;
  /** bytes, of a link those of its target; null where there is none */
  old_size: number | null;
  new_size: number | null;
  /** what differs; empty where one side has no such path */
  changes: DiffChange[];
}

/** What differs between two states of files; every list sorted by path, name by name. */
export interface DiffAnswer {
  ok: true;
  /** as both were understood */
  from: string;
  to: string;
  added: DiffEntry[];
  /** another content, target, device or type */
  modified: DiffEntry[];
  deleted: DiffEntry[];
  /** the same content with another owner, mode, time or attributes; a directory's time does not count */
  metadata: DiffEntry[];
  /** of all that differs, listed or not */
  totals: { added: number; modified: number; deleted: number; metadata: number };
  /** whether there is more than is listed */
  truncated: boolean;
}

/** What differs in one path. */
export interface DiffFileAnswer {
  ok: true;
  from: string;
  to: string;
  kind: "same" | "added" | "modified" | "deleted" | "metadata";
  entry: DiffEntry;
  /** whether a side is no text: it holds NUL or is no UTF-8 */
  binary: boolean;
  /** whether a side is too large for a text to be made of it */
  too_large: boolean;
  /** a unified diff; "" where the contents are the same, null where none can be made */
  diff: string | null;
}

/** Which two states: `base` (the modules alone), `live`, a label, `@<sandbox>` or `@<sandbox>/<label>`. */
export interface DiffRequest {
  /** default: the snapshot taken or restored last, or else `base` */
  from?: string;
  /** default: `live` */
  to?: string;
  /** entries that are listed: 1 to 100,000, 10,000 by default */
  limit?: number;
}

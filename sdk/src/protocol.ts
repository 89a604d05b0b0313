/**
 * The wire contract: every shape that crosses the HTTP API, as plain data. The daemon's schemas are checked against these
 * types by the compiler. Times are RFC 3339 UTC strings, sizes are bytes unless a name says otherwise.
 */

import type { ModuleFormat } from "./protocol-modules.js";
import type { NetLimits } from "./protocol-network.js";
import type { RemoteJob } from "./protocol-remote.js";

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
  secret_not_found: 404,
  /** another secret needs it */
  secret_in_use: 409,
  /** the file of secrets, or that of their key, cannot be used as it is; the text says what to do */
  secrets_unusable: 409,
  /** an image of the snapshot is not what it was when it was taken; nothing is mounted of it */
  snapshot_damaged: 500,
  /** another machine runs the sandbox; `details` says which, and until when by the store's clock */
  sandbox_leased: 409,
  /** another machine may run the sandbox by now, so that this one may not any more, and what it wanted to save is not saved */
  lease_lost: 409,
  /** the object store cannot be reached, or is not well */
  s3_unreachable: 503,
  /** the object store refuses squashd's credentials, or what they may do */
  s3_denied: 502,
  /** the object store refuses what was asked */
  s3_failed: 502,
  s3_object_missing: 404,
  /** an object is not what it says, or nothing that squashd wrote */
  s3_object_invalid: 502,
  /** this squashd has no object store */
  s3_off: 409,
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
  /** which of them stay */
  retention: Retention;
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
  /** names of the secrets that it may use, as asked for; null for all that there are, those included that come later */
  secrets: string[] | null;
  /** names of those that it has at this moment */
  secrets_granted: string[];
  /** whether its root trusts the proxy, so that they are put into what is encrypted; false for a root that was made when it had none */
  secrets_trusted: boolean;
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

/**
 * Which snapshots stay by themselves: the newest `keep_last`, and those that are no older than `keep_for_s` seconds; where neither says
 * anything (0), all. Pinned ones always stay, and so do those that were taken or restored last or are being used.
 */
export interface Retention {
  /** 0–256; 0 says nothing */
  keep_last: number;
  /** seconds, 0–315,360,000; 0 says nothing */
  keep_for_s: number;
}

/** Body of `PUT /v1/sandboxes/:id/retention`: both are replaced. An absent one is the daemon's, `SQUASH_KEEP_LAST` or `SQUASH_KEEP_FOR_S`. */
export interface RetentionRequest {
  keep_last?: number;
  keep_for_s?: number;
}

export interface RetentionAnswer extends Retention {
  /** labels of the snapshots that went at once */
  removed: string[];
}

/** Body of `PUT /v1/sandboxes/:id/snapshots/:label`. */
export interface SnapshotChange {
  /** whether it stays whatever the retention says */
  pinned: boolean;
}

/** Body of `POST /v1/sandboxes/:id/promote`; the answer is the job that makes the module. */
export interface PromoteRequest {
  /** label of the snapshot */
  snapshot: string;
  /** name of the module, which must lie above those that the snapshot stands on */
  module: string;
  /** whether a module of that name may be replaced, unless sandboxes use it; @default false */
  replace?: boolean;
  /** images that are made; @default erofs only */
  formats?: ModuleFormat[];
}

/** Body of `POST /v1/sandboxes/:id/snapshot`. */
export interface SnapshotRequest {
  /** as module names; @default the time in UTC, as `20260131-235959` */
  label?: string;
  /** who takes it, as a text for the history; @default the sandbox's owner */
  by?: string;
  /** by what means, as the caller says; @default "api" */
  origin?: SnapshotOrigin;
  /** whether it stays whatever the retention says; @default false */
  pinned?: boolean;
}

export type SnapshotOrigin = "api" | "cli";

export interface SnapshotAnswer {
  snapshot: string;
  size: number;
  /** milliseconds for which nothing ran in the sandbox */
  paused_ms: number;
  /** labels of older snapshots that the retention has removed */
  removed: string[];
  /** the bucket has it; only where that was waited for */
  durable?: true;
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
  /** names of the secrets that the forks may use, null for all; @default those of the sandbox */
  secrets?: string[] | null;
}

/** One snapshot in the answer of `GET /v1/sandboxes/:id/history`. */
export interface HistoryEntry extends SnapshotInfo {
  /** what it was taken after; null at the beginning */
  parent: string | null;
  /** module names then, topmost first */
  layers: string[];
  /** images that make up its files, its own included; fewer once the background has merged them */
  depth: number;
  /** bytes of all these images, of which other snapshots may share some */
  total_size: number;
  /** of its topmost image; null until it is known, and where such an image has none */
  sha256: string | null;
  /** who took it, as the request said; null where that was not kept */
  by: string | null;
  origin: SnapshotOrigin | null;
  /** whether it stays whatever the retention says */
  pinned: boolean;
  /** whether it was restored last */
  active: boolean;
  /** whether it is what the next one is taken after */
  head: boolean;
}

/** Body of `POST /v1/gc`. */
export interface CollectRequest {
  /** only says what would go; @default false */
  dry_run?: boolean;
}

export interface CollectAnswer {
  /** images of snapshots that no sandbox uses */
  images: string[];
  /** files and folders of caches and of work that broke off, relative to the data directory */
  files: string[];
  /** freed, or with `dry_run` to be freed */
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
  /** names of the secrets that it may use; absent or null for all that there are, those included that come later; [] for none */
  secrets?: string[] | null;
  /** whether commands may make user namespaces of their own; @default false */
  nested_userns?: boolean;
  /** snapshots that stay; @default the daemon's `SQUASH_KEEP_LAST` and `SQUASH_KEEP_FOR_S` */
  retention?: RetentionRequest;
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

/** A container image: of a registry, of an OCI layout, or of what `docker save` wrote. */
export interface FromOciJob extends ModuleJob {
  kind: "from-oci";
  /** `[registry[:port]/]repository[:tag][@digest]`; with `layout` or `archive`, what the image is called there */
  reference?: string;
  /** directory on the daemon's machine, below one of `SQUASH_BUILD_DIRS` */
  layout?: string;
  /** file on the daemon's machine, below one of `SQUASH_BUILD_DIRS` */
  archive?: string;
  /** such as `linux/arm64`; @default the machine's own */
  platform?: string;
  /** whether each layer becomes a module of its own; @default false */
  per_layer?: boolean;
  /** whether plain HTTP is allowed, to whatever registry; @default false, but on loopback */
  insecure?: boolean;
  /** for the registry; neither kept nor logged, nor sent anywhere else than to it and to the server for tokens that it names */
  username?: string;
  password?: string;
}

/** What a sandbox has written. */
export interface FromSandboxJob extends ModuleJob {
  kind: "from-sandbox";
  name: string;
  /** its id */
  sandbox: string;
  /** label of a snapshot of it; @default its files now */
  snapshot?: string;
  /** whether what belongs to the machine, caches and logs are kept; @default false */
  all?: boolean;
}

/** Packages of a distribution, installed in a sandbox that is made for it. */
export interface PresetJob extends ModuleJob {
  kind: "preset";
  /** which one, such as `python3` */
  preset: string;
  /** module that it is installed on; @default the daemon's first base */
  base?: string;
  /** packages instead of the preset's own */
  packages?: string[];
  /** what the sandbox may reach, as in `allow_net`; @default the package mirrors that the base is set up for */
  allow_net?: string[];
}

/** Another image of a module. */
export interface ConvertJob {
  kind: "convert";
  name: string;
  format: ModuleFormat;
}

/** The files that a snapshot has above its modules, as a module that stands on these. */
export interface PromoteJob {
  kind: "promote";
  name: string;
  /** id of the sandbox */
  sandbox: string;
  /** label of its snapshot */
  snapshot: string;
  replace?: boolean;
  /** images that are made; @default erofs only */
  formats?: ModuleFormat[];
}

/** Jobs that make modules. */
export type BuildJob =
  MkbaseJob | FromDirJob | FromTarJob | FromOciJob | FromSandboxJob | PresetJob | ConvertJob | PromoteJob;

/** Body of `POST /v1/jobs`. */
export type JobRequest = BuildJob | RemoteJob;

export type JobState = "queued" | "running" | "done" | "failed" | "cancelled";

/** Work that goes on in the background. */
export interface JobInfo {
  id: string;
  kind: JobRequest["kind"];
  /** what it makes, changes, sends or fetches */
  module: string;
  /** what it has made or changed, the lowest of a stack first; empty before it is done */
  modules: string[];
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
  /** how many there are, and whether their file can be used as it is; where not, `GET /v1/secrets` says why */
  secrets: { count: number; usable: boolean };
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

export type * from "./protocol-diff.js";
export type * from "./protocol-modules.js";
export type * from "./protocol-network.js";
export type * from "./protocol-remote.js";
export type * from "./protocol-secrets.js";

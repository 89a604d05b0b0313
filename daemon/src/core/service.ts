import type { NetworkUsage } from "./egress/networks.js";
import type {
  AuthorityInfo,
  CollectAnswer,
  CreateSandbox,
  DiffAnswer,
  DiffFileAnswer,
  ExecRequest,
  ExecResult,
  ForkRequest,
  GrantRequest,
  Health,
  HistoryEntry,
  JobInfo,
  JobRequest,
  ModuleInfo,
  ModuleRequest,
  NetworkDecision,
  NetworkInfo,
  NetworkRequest,
  QueueEntryInfo,
  RemoteModuleInfo,
  RemoteSnapshotInfo,
  RemoteStatus,
  RestoreRequest,
  RetentionAnswer,
  RetentionRequest,
  SandboxInfo,
  SecretAuditEntry,
  SecretAuditQuery,
  SecretInfo,
  SecretList,
  SecretRequest,
  SnapshotAnswer,
  SnapshotRequest,
} from "@squash/sdk/protocol";

/** What the HTTP routes need of the domain. Every method throws `SquashError` for what a caller can act on. */
export interface SandboxService {
  /** Validates, creates and returns when the sandbox is ready; `signal` cancels and undoes. */
  create(request: CreateSandbox, signal: AbortSignal): Promise<SandboxInfo>;
  /** All sandboxes, oldest first. */
  list(): Promise<SandboxInfo[]>;
  get(id: string): Promise<SandboxInfo>;
  /** Returns when nothing of it is left. */
  destroy(id: string): Promise<void>;
  /** Runs a command to its end; `signal` kills its whole process tree. */
  exec(id: string, request: ExecRequest, signal: AbortSignal): Promise<ExecResult>;
  /** Results of all finished commands, by `seq`. */
  logs(id: string): Promise<ExecResult[]>;
  /** What it may reach and has reached. */
  network(id: string): Promise<NetworkInfo>;
  /** Replaces the policy; returns when it is in force and what it does not allow is cut. */
  setNetwork(id: string, request: NetworkRequest): Promise<NetworkInfo>;
  /** Replaces which secrets it may use; returns when they are in force and what had another one is cut. */
  setSecrets(id: string, request: GrantRequest): Promise<SandboxInfo>;
}

/** What the routes about sandboxes' files over time need; core/time-travel.ts has what each does. */
export interface TimeService {
  readonly stacks: {
    activate(id: string, request: ModuleRequest, signal: AbortSignal): Promise<SandboxInfo>;
    deactivate(id: string, request: ModuleRequest, signal: AbortSignal): Promise<SandboxInfo>;
    restore(id: string, request: RestoreRequest, signal: AbortSignal): Promise<SandboxInfo>;
  };
  readonly snapshots: {
    take(id: string, request: SnapshotRequest): Promise<SnapshotAnswer>;
    history(id: string): HistoryEntry[];
    pin(id: string, label: string, pinned: boolean): Promise<HistoryEntry>;
    remove(id: string, label: string): Promise<void>;
    collect(options: { readonly dryRun: boolean }): Promise<CollectAnswer>;
  };
  readonly retention: { set(id: string, request: RetentionRequest): Promise<RetentionAnswer> };
  readonly forks: { fork(id: string, request: ForkRequest, signal: AbortSignal): Promise<SandboxInfo[]> };
}

/** What the route about differences needs. All throw what `Diffs.compare` does. */
export interface DiffService {
  list(id: string, query: DiffQuery, signal: AbortSignal): Promise<DiffAnswer>;
  /** Of one file. Throws `path_not_found` where neither side has it. */
  file(id: string, query: DiffFileQuery, signal: AbortSignal): Promise<DiffFileAnswer>;
  /** A tar file of what is new or changed, with whiteouts for what is gone. */
  tar(id: string, query: DiffSides, signal: AbortSignal): Promise<AsyncIterable<Uint8Array>>;
}

/** Both as core/diff-sides.ts says. */
export interface DiffSides {
  readonly from?: string | undefined;
  readonly to?: string | undefined;
}

export interface DiffQuery extends DiffSides {
  /** entries that are listed at most */
  readonly limit: number;
}

export interface DiffFileQuery extends DiffSides {
  readonly path: Buffer;
}

/** What the network routes need besides. */
export interface DecisionLog {
  /** The newest decisions on a sandbox, oldest first; also of one that does not exist any more. */
  read(sandbox: string, limit: number): Promise<NetworkDecision[]>;
}

/** What the routes about secrets need. Nothing that it returns or throws has a value in it. */
export interface SecretService {
  list(): SecretList;
  /** Makes a secret, or replaces one; in force when this returns. Throws `invalid_request`, `secrets_unusable`. */
  put(name: string, request: SecretRequest): Promise<SecretInfo>;
  /** When this returns, it is sent nowhere any more. Throws `secret_not_found`, `secret_in_use`, `secrets_unusable`. */
  remove(name: string): Promise<void>;
  /** Encrypts them with another key. Throws `invalid_request` where they are not encrypted, and `secrets_unusable`. */
  rekey(): Promise<void>;
  /** The newest entries, oldest first; also of sandboxes and secrets that do not exist any more. */
  audit(query: SecretAuditQuery & { readonly limit: number }): Promise<SecretAuditEntry[]>;
}

/** What the routes about the certificate authority need. Both throw `network_off` where there is none. */
export interface Authorities {
  current(): AuthorityInfo;
  /** Makes another one; sandboxes that trust the old one go on with it. */
  rotate(): Promise<AuthorityInfo>;
}

/** What the module routes need. Methods that take a name throw `module_not_found`, or `invalid_request` for what can be no name. */
export interface ModuleService {
  /** Modules by name. */
  list(): Promise<ModuleInfo[]>;
  get(name: string): Promise<ModuleInfo>;
  /** Throws `module_in_use`. */
  remove(name: string): Promise<void>;
  /** Takes an image that is sent. Throws `module_exists`, `module_in_use`, `module_invalid`, `digest_mismatch`, `body_too_large`. */
  put(name: string, upload: ModuleUpload): Promise<ModuleInfo>;
  /** Writes a manifest for images that somebody put there by hand. */
  trust(name: string): Promise<ModuleInfo>;
}

/** An image as it is sent. */
export interface ModuleUpload {
  readonly body: AsyncIterable<Uint8Array>;
  /** 64 hexadecimal digits, what it must be */
  readonly sha256: string;
  /** whether a module of that name may be replaced */
  readonly replace: boolean;
  /** for the manifest; absent: what the image says of itself */
  readonly requires?: readonly string[];
  readonly conflicts?: readonly string[];
  /** aborts when the sender goes away */
  readonly signal: AbortSignal;
}

/** What the job routes need. */
export interface JobService {
  /** Begins a job. Throws `invalid_request`, `module_exists`, `job_limit`. */
  start(request: JobRequest): Promise<JobInfo>;
  /** Takes a tar file that is sent, and begins to make a module of it. Throws `digest_mismatch`, `body_too_large`, and what `start` does. */
  startFromTar(name: string, upload: ModuleUpload): Promise<JobInfo>;
  /** Newest first. */
  list(): JobInfo[];
  /** Throws `job_not_found`, as those do that follow. */
  get(id: string): JobInfo;
  /** Calls `listener` at each change until the answer is called. */
  watch(id: string, listener: () => void): () => void;
  /** Cancels a job, and returns when it has ended; one that is over is taken off the list. */
  remove(id: string): Promise<void>;
}

/** What the routes about the bucket need. Those that ask it throw `s3_unreachable`, `s3_denied`, `s3_failed`. */
export interface RemoteService {
  status(): RemoteStatus;
  /** What is still to be done, oldest first. */
  queue(): QueueEntryInfo[];
  modules(signal: AbortSignal): Promise<RemoteModuleInfo[]>;
  /** Of one sandbox, or of all. */
  snapshots(id: string | null, signal: AbortSignal): Promise<RemoteSnapshotInfo[]>;
  /** Takes something out of the bucket; what is here stays. Idempotent. */
  remove(
    what: { readonly module: string } | { readonly id: string; readonly label: string | null },
    signal: AbortSignal,
  ): Promise<void>;
  /** Sends a snapshot and waits until the bucket has it. */
  durable(id: string, label: string, signal: AbortSignal): Promise<void>;
}

/** What the health route needs. */
export interface HealthSource {
  health(): Promise<Health>;
}

/** Gauges that are read when metrics are scraped. */
export interface Gauges {
  sandboxesByState(): Readonly<Record<string, number>>;
  /** pooled cells that wait */
  poolReady(): number;
  /** mounted layers, each counted once */
  layersMounted(): number;
  /** addresses that names have resolved to, in all sandboxes' sets */
  learnedAddresses(): number;
  /** figures of every sandbox that has a network */
  networks(): Promise<readonly NetworkFigures[]>;
}

export interface NetworkFigures {
  readonly sandbox: string;
  readonly usage: NetworkUsage;
}

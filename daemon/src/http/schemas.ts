import { Type, type Static } from "@sinclair/typebox";
import {
  errorStatus,
  type CreateSandbox,
  type ErrorBody,
  type ErrorCode,
  type ExecRequest,
  type ExecResult,
  type Health,
  type RetentionRequest,
  type SandboxInfo,
  type SandboxState,
  type SnapshotInfo,
} from "@squash/sdk/protocol";
import { bounds, idPattern, labelPattern } from "../core/validate.js";
import { jobBody, jobInfo } from "./job-schemas.js";
import { moduleInfo } from "./module-schemas.js";
import { allowNet, denyNet, netLimits, networkBody, networkDecision, networkInfo } from "./network-schemas.js";
import { remoteSchemas } from "./remote-schemas.js";
import { grantedNames, secretSchemas } from "./secret-schemas.js";
import { closed, nullable, time, type Same } from "./schema-parts.js";
import { diffSchemas } from "./diff-schemas.js";
import { retention, retentionBody, timeSchemas } from "./time-schemas.js";

const codes = Object.keys(errorStatus) as ErrorCode[];

export const errorBody = Type.Object(
  {
    error: Type.String({ description: "what happened, where, and what to do" }),
    code: Type.Unsafe<ErrorCode>({
      type: "string",
      enum: codes,
      description: "the same for a program; the list only grows",
    }),
    details: Type.Optional(Type.Record(Type.String(), Type.Unknown())),
  },
  { $id: "Error" },
);
true satisfies Same<Static<typeof errorBody>, ErrorBody>;

const snapshotInfo = Type.Object({
  label: Type.String(),
  created: time("when it was taken"),
  size: Type.Integer({ description: "bytes" }),
});
true satisfies Same<Static<typeof snapshotInfo>, SnapshotInfo>;

const states: SandboxState[] = ["creating", "ready", "recovering", "lost", "failed", "destroying"];

export const sandboxInfo = Type.Object(
  {
    id: Type.String(),
    state: Type.Unsafe<SandboxState>({ type: "string", enum: states }),
    reason: nullable(Type.String({ description: "why it is lost or failed, or what ended its last life" })),
    owner: Type.String(),
    task: Type.String(),
    layers: Type.Array(Type.String(), { description: "module names, topmost first" }),
    backend: Type.Literal("cell"),
    created: time("when it was made"),
    last_active: time("when its last command began or ended"),
    mounted: Type.Boolean({ description: "whether it can run commands" }),
    exec_count: Type.Integer(),
    running: Type.Integer({ description: "commands that run at this moment" }),
    upper_bytes: Type.Integer({ description: "bytes used in the writable layer; 0 where unknown" }),
    upper_limit_bytes: Type.Integer(),
    snapshots: Type.Array(snapshotInfo),
    retention,
    active_snapshot: nullable(Type.String({ description: "label of the snapshot that was restored last" })),
    forked_from: nullable(Type.String({ description: "the sandbox that it was forked from, as id or id@label" })),
    cpu: Type.Number({ description: "cores" }),
    memory_mb: Type.Integer(),
    pids: Type.Integer({ description: "processes and threads together" }),
    max_lifetime_s: Type.Integer({ description: "seconds from its creation after which it is destroyed; 0 = never" }),
    allow_net: nullable(Type.Array(Type.String())),
    deny_net: Type.Array(Type.String()),
    net_limits: netLimits,
    secrets: nullable(
      Type.Array(Type.String(), {
        description: "names of the secrets that it may use, as asked for; null = all, those included that come later",
      }),
    ),
    secrets_granted: Type.Array(Type.String(), { description: "names of those that it has at this moment" }),
    secrets_trusted: Type.Boolean({
      description:
        "whether its root trusts the proxy, so that they are put into what is encrypted; false for a root that was made when it had none",
    }),
    address: nullable(Type.String({ description: "its IPv4 address" })),
    address6: nullable(Type.String({ description: "its IPv6 address; null where sandboxes have none" })),
    oom_kills: Type.Integer({ description: "processes that the kernel killed for lack of memory" }),
    restarts: Type.Integer({ description: "times it was rebuilt after its processes had died" }),
    cgroup: nullable(Type.String({ description: "path of its (memory) cgroup on the host" })),
    pid: nullable(Type.Integer({ description: "process id of its init on the host" })),
  },
  { $id: "Sandbox" },
);
true satisfies Same<Static<typeof sandboxInfo>, SandboxInfo>;

const layerName = Type.String({ maxLength: 128, description: `a module's name: ${labelPattern}` });

export const createBody = Type.Object(
  {
    id: Type.String({ pattern: idPattern, description: "letters, digits, _ and -; neither starts nor ends with -" }),
    owner: Type.Optional(Type.String({ maxLength: bounds.owner, default: "anon" })),
    layers: Type.Optional(
      Type.Union([Type.Array(layerName, { maxItems: bounds.layers }), Type.String({ maxLength: 16_384 })], {
        description: "module names, as an array or separated by commas; without any the daemon's default",
      }),
    ),
    task: Type.Optional(Type.String({ maxLength: bounds.task, default: "" })),
    cpu: Type.Optional(
      Type.Number({ minimum: bounds.cpu.min, maximum: bounds.cpu.max, default: 2, description: "cores" }),
    ),
    memory_mb: Type.Optional(
      Type.Integer({ minimum: bounds.memoryMb.min, maximum: bounds.memoryMb.max, default: 1024 }),
    ),
    pids: Type.Optional(Type.Integer({ minimum: bounds.pids.min, maximum: bounds.pids.max, default: 1024 })),
    max_lifetime_s: Type.Optional(
      Type.Integer({
        minimum: bounds.lifetimeS.min,
        maximum: bounds.lifetimeS.max,
        default: 0,
        description: "0 = unlimited",
      }),
    ),
    allow_net: Type.Optional(allowNet),
    deny_net: Type.Optional(denyNet),
    net_limits: Type.Optional(netLimits),
    secrets: Type.Optional(grantedNames),
    nested_userns: Type.Optional(
      Type.Boolean({ default: false, description: "whether commands may make user namespaces of their own" }),
    ),
    retention: Type.Optional(Type.Unsafe<RetentionRequest>(Type.Ref(retentionBody.$id ?? ""))),
  },
  { $id: "CreateSandbox", ...closed },
);
true satisfies Same<Static<typeof createBody>, CreateSandbox>;

export const execBody = Type.Object(
  {
    cmd: Type.Union(
      [Type.String({ minLength: 1 }), Type.Array(Type.String(), { minItems: 1, maxItems: bounds.args })],
      {
        description: "a shell command with the login environment, or a program with its arguments; at most 64 KiB",
      },
    ),
    workdir: Type.Optional(Type.String({ minLength: 1, maxLength: bounds.workdir })),
    timeout: Type.Optional(
      Type.Union([Type.Number(), Type.String({ maxLength: 32 })], {
        description: "seconds, brought into 1–3600; 300 by default",
      }),
    ),
    stdin: Type.Optional(Type.String({ description: "the command's standard input, which is empty otherwise" })),
    env: Type.Optional(
      Type.Record(Type.String(), Type.String({ maxLength: bounds.envValue }), {
        maxProperties: bounds.env,
        description: "added to the clean environment",
      }),
    ),
    user: Type.Optional(
      Type.Union(
        [Type.String({ minLength: 1, maxLength: bounds.user }), Type.Integer({ minimum: 0, maximum: bounds.maxUid })],
        {
          description: "user name or uid inside; root by default",
        },
      ),
    ),
  },
  { $id: "ExecRequest", ...closed },
);
true satisfies Same<Static<typeof execBody>, ExecRequest>;

export const execResult = Type.Object(
  {
    seq: Type.Integer({ description: "number of this command in the life of the sandbox, from 1" }),
    cmd: Type.Union([Type.String(), Type.Array(Type.String())]),
    workdir: Type.String(),
    exit_code: Type.Integer({
      description:
        "the command's status; 124 timed out, 125 could not be set up, 126 cannot be executed, 127 not found, 128+N killed by signal N",
    }),
    started: time("when it began"),
    finished: time("when it ended"),
    duration_ms: Type.Number(),
    stdout: Type.String({ description: "the first 64 KiB, invalid UTF-8 replaced" }),
    stderr: Type.String({ description: "the first 64 KiB, invalid UTF-8 replaced" }),
    stdout_truncated: Type.Boolean(),
    stderr_truncated: Type.Boolean(),
    timed_out: Type.Boolean(),
    oom_killed: Type.Boolean({ description: "whether the kernel killed something for lack of memory meanwhile" }),
  },
  { $id: "ExecResult" },
);
true satisfies Same<Static<typeof execResult>, ExecResult>;

export const health = Type.Object(
  {
    status: Type.Union([Type.Literal("ok"), Type.Literal("degraded")]),
    backend: Type.Literal("cell"),
    version: Type.String(),
    tailscale: Type.Object({ status: Type.Literal("off"), ip: Type.Null() }),
    sandboxes: Type.Integer(),
    modules: Type.Integer(),
    base_ready: Type.Boolean({ description: "whether any 000-* module is there" }),
    pool: Type.Object({ ready: Type.Integer({ description: "cells that wait" }), size: Type.Integer() }),
    secrets: Type.Object({
      count: Type.Integer(),
      usable: Type.Boolean({
        description: "whether their file can be used as it is; where not, GET /v1/secrets says why",
      }),
    }),
    uptime_s: Type.Integer(),
  },
  { $id: "Health" },
);
true satisfies Same<Static<typeof health>, Health>;

export const idParams = Type.Object({ id: Type.String({ description: "the sandbox's id" }) });

/** Every schema that has a name of its own in the OpenAPI document. */
export const namedSchemas = [
  errorBody,
  sandboxInfo,
  createBody,
  execBody,
  execResult,
  networkBody,
  networkInfo,
  networkDecision,
  moduleInfo,
  jobBody,
  jobInfo,
  health,
  ...timeSchemas,
  ...diffSchemas,
  ...secretSchemas,
  ...remoteSchemas,
];

import { Type, type Static, type TSchema } from "@sinclair/typebox";
import type {
  BucketCollectJob,
  ConvertJob,
  ErrorCode,
  FromDirJob,
  FromOciJob,
  FromSandboxJob,
  FromTarJob,
  JobInfo,
  JobRequest,
  JobState,
  MkbaseJob,
  PresetJob,
  PromoteJob,
  PullJob,
  PushJob,
  SyncJob,
  VerifyJob,
} from "@squash/sdk/protocol";
import { moduleFormat, moduleFormats, uploadQuery } from "./module-schemas.js";
import { closed, nullable, time, type Same } from "./schema-parts.js";

const name = Type.String({ minLength: 1, maxLength: 128, description: "of the module" });
const others = (description: string) =>
  Type.Optional(Type.Array(Type.String({ maxLength: 128 }), { maxItems: 64, description }));
const sha256 = Type.String({ pattern: "^[0-9A-Fa-f]{64}$" });
const url = Type.String({ maxLength: 2048, description: "http or https; it is asked for by the daemon's machine" });

const common = {
  replace: Type.Optional(Type.Boolean({ default: false, description: "whether there may be one of that name" })),
  formats: moduleFormats,
  requires: others("modules that a stack with this one must have"),
  conflicts: others("modules that it must not have"),
};

const mkbaseJob = Type.Object(
  {
    kind: Type.Literal("mkbase"),
    base: Type.Unsafe<MkbaseJob["base"]>({ type: "string", enum: ["busybox", "debian", "alpine", "ubuntu", "void"] }),
    name: Type.Optional(name),
    release: Type.Optional(Type.String({ maxLength: 64, description: "code name, for debian" })),
    packages: Type.Optional(Type.Array(Type.String({ maxLength: 128 }), { maxItems: 500, description: "for debian" })),
    url: Type.Optional(url),
    sha256: Type.Optional(sha256),
    ...common,
  },
  closed,
);
true satisfies Same<Static<typeof mkbaseJob>, MkbaseJob>;

const fromDirJob = Type.Object(
  { kind: Type.Literal("from-dir"), name, path: Type.String({ minLength: 1, maxLength: 4096 }), ...common },
  closed,
);
true satisfies Same<Static<typeof fromDirJob>, FromDirJob>;

const fromTarJob = Type.Object({ kind: Type.Literal("from-tar"), name, url, sha256, ...common }, closed);
true satisfies Same<Static<typeof fromTarJob>, FromTarJob>;

const path = Type.String({
  minLength: 1,
  maxLength: 4096,
  description: "on the daemon's machine, below one of SQUASH_BUILD_DIRS",
});
const fromOciJob = Type.Object(
  {
    kind: Type.Literal("from-oci"),
    name: Type.Optional(name),
    reference: Type.Optional(
      Type.String({ minLength: 1, maxLength: 1024, description: "[registry[:port]/]repository[:tag][@digest]" }),
    ),
    layout: Type.Optional(path),
    archive: Type.Optional(path),
    platform: Type.Optional(Type.String({ maxLength: 64, description: "such as linux/arm64" })),
    per_layer: Type.Optional(Type.Boolean({ default: false, description: "whether each layer becomes a module" })),
    insecure: Type.Optional(Type.Boolean({ default: false, description: "whether plain HTTP is allowed" })),
    username: Type.Optional(Type.String({ minLength: 1, maxLength: 256, description: "for the registry" })),
    password: Type.Optional(
      Type.String({ maxLength: 8192, writeOnly: true, description: "for the registry; neither kept nor logged" }),
    ),
    ...common,
  },
  closed,
);
true satisfies Same<Static<typeof fromOciJob>, FromOciJob>;

const fromSandboxJob = Type.Object(
  {
    kind: Type.Literal("from-sandbox"),
    name,
    sandbox: Type.String({ minLength: 1, maxLength: 64, description: "its id" }),
    snapshot: Type.Optional(Type.String({ maxLength: 128, description: "its label; without it the files now" })),
    all: Type.Optional(
      Type.Boolean({ default: false, description: "whether files of the machine, caches and logs are kept" }),
    ),
    ...common,
  },
  closed,
);
true satisfies Same<Static<typeof fromSandboxJob>, FromSandboxJob>;

const presetJob = Type.Object(
  {
    kind: Type.Literal("preset"),
    preset: Type.String({ minLength: 1, maxLength: 64, description: "such as python3" }),
    base: Type.Optional(Type.String({ minLength: 1, maxLength: 128, description: "module that it is installed on" })),
    packages: Type.Optional(
      Type.Array(Type.String({ maxLength: 128 }), {
        minItems: 1,
        maxItems: 200,
        description: "instead of the preset's own",
      }),
    ),
    allow_net: Type.Optional(
      Type.Array(Type.String({ maxLength: 260 }), {
        minItems: 1,
        maxItems: 64,
        description: "what may be reached, instead of the mirrors that the base is set up for",
      }),
    ),
    name: Type.Optional(name),
    ...common,
  },
  closed,
);
true satisfies Same<Static<typeof presetJob>, PresetJob>;

const convertJob = Type.Object({ kind: Type.Literal("convert"), name, format: moduleFormat }, closed);
true satisfies Same<Static<typeof convertJob>, ConvertJob>;

const promoteJob = Type.Object(
  {
    kind: Type.Literal("promote"),
    name,
    sandbox: Type.String({ maxLength: 64, description: "its id" }),
    snapshot: Type.String({ maxLength: 128, description: "its label" }),
    replace: common.replace,
    formats: common.formats,
  },
  closed,
);
true satisfies Same<Static<typeof promoteJob>, PromoteJob>;

const transfer = {
  module: Type.Optional(name),
  sandbox: Type.Optional(Type.String({ maxLength: 64, description: "its id" })),
  label: Type.Optional(Type.String({ maxLength: 128, description: "of one of its snapshots; absent: all" })),
  replace: Type.Optional(
    Type.Boolean({
      default: false,
      description:
        "whether another module of that name may be replaced; a push sends all of what is named anew, which mends what is damaged in the bucket",
    }),
  ),
};
const pushJob = Type.Object({ kind: Type.Literal("push"), ...transfer }, closed);
true satisfies Same<Static<typeof pushJob>, PushJob>;

const pullJob = Type.Object({ kind: Type.Literal("pull"), ...transfer }, closed);
true satisfies Same<Static<typeof pullJob>, PullJob>;

const syncJob = Type.Object({ kind: Type.Literal("sync"), sandbox: transfer.sandbox }, closed);
true satisfies Same<Static<typeof syncJob>, SyncJob>;

const verifyJob = Type.Object(
  {
    kind: Type.Literal("s3-verify"),
    deep: Type.Optional(Type.Boolean({ default: false, description: "reads every byte" })),
  },
  closed,
);
true satisfies Same<Static<typeof verifyJob>, VerifyJob>;

const bucketCollectJob = Type.Object(
  {
    kind: Type.Literal("s3-gc"),
    dry_run: Type.Optional(Type.Boolean({ default: false })),
    grace_s: Type.Optional(
      Type.Integer({
        minimum: 0,
        maximum: 31_536_000,
        default: 86_400,
        description: "what is younger stays, in seconds",
      }),
    ),
  },
  closed,
);
true satisfies Same<Static<typeof bucketCollectJob>, BucketCollectJob>;

const kinds = {
  mkbase: mkbaseJob,
  "from-dir": fromDirJob,
  "from-tar": fromTarJob,
  "from-oci": fromOciJob,
  "from-sandbox": fromSandboxJob,
  preset: presetJob,
  convert: convertJob,
  promote: promoteJob,
  push: pushJob,
  pull: pullJob,
  sync: syncJob,
  "s3-verify": verifyJob,
  "s3-gc": bucketCollectJob,
} satisfies Readonly<Record<JobRequest["kind"], TSchema>>;

/** Only the schema of the kind that is named is asked, so that it is what complains. */
export const jobBody = Type.Unsafe<JobRequest>({
  $id: "JobRequest",
  type: "object",
  required: ["kind"],
  discriminator: { propertyName: "kind" },
  oneOf: Object.values(kinds),
});

const states: JobState[] = ["queued", "running", "done", "failed", "cancelled"];

export const jobInfo = Type.Object(
  {
    id: Type.String(),
    kind: Type.Unsafe<JobInfo["kind"]>({ type: "string", enum: Object.keys(kinds) }),
    module: Type.String({ description: "what it makes, changes, sends or fetches" }),
    modules: Type.Array(Type.String(), {
      description: "what it has made or changed, the lowest of a stack first; empty before it is done",
    }),
    state: Type.Unsafe<JobState>({ type: "string", enum: states }),
    step: Type.String({ description: "what it is doing at this moment" }),
    fraction: nullable(Type.Number({ description: "how much of it is done, from 0 to 1" })),
    lines: Type.Array(Type.String(), { description: "the newest steps, oldest first, at most 50" }),
    created: time("when it was asked for"),
    started: nullable(time("when it began")),
    finished: nullable(time("when it was over")),
    error: nullable(Type.String({ description: "why it failed" })),
    code: nullable(Type.Unsafe<ErrorCode>({ type: "string" })),
  },
  { $id: "Job" },
);
true satisfies Same<Static<typeof jobInfo>, JobInfo>;

export const tarQuery = Type.Object({ name, ...uploadQuery }, closed);

export const jobParams = Type.Object({ id: Type.String({ description: "the job's id" }) });

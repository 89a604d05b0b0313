import { Type, type Static } from "@sinclair/typebox";
import type {
  CollectAnswer,
  CollectRequest,
  ForkRequest,
  HistoryEntry,
  ModuleRequest,
  PromoteRequest,
  RestoreRequest,
  Retention,
  RetentionAnswer,
  RetentionRequest,
  RunningPolicy,
  SnapshotAnswer,
  SnapshotChange,
  SnapshotOrigin,
  SnapshotRequest,
} from "@squash/sdk/protocol";
import { bounds, idPattern, labelPattern } from "../core/validate.js";
import { moduleFormats } from "./module-schemas.js";
import { grantedNames } from "./secret-schemas.js";
import { closed, nullable, time, type Same } from "./schema-parts.js";

const label = Type.String({ pattern: labelPattern, description: "letters, digits, _ - and .; at most 128" });

const policies: RunningPolicy[] = ["refuse", "kill", "wait"];
const stackFields = {
  running: Type.Optional(
    Type.Unsafe<RunningPolicy>({
      type: "string",
      enum: policies,
      default: "refuse",
      description: "what happens to commands and processes that run: none survives the change",
    }),
  ),
  timeout: Type.Optional(
    Type.Number({
      minimum: bounds.timeoutS.min,
      maximum: bounds.timeoutS.max,
      default: 300,
      description: 'seconds to wait for them; only with "wait"',
    }),
  ),
};

const origin = Type.Unsafe<SnapshotOrigin>({
  type: "string",
  enum: ["api", "cli"] satisfies SnapshotOrigin[],
  description: "by what means it was taken, as the caller said",
});
const labels = Type.Array(Type.String(), { description: "labels of snapshots that the retention has removed" });

export const snapshotBody = Type.Object(
  {
    label: Type.Optional(label),
    by: Type.Optional(
      Type.String({ minLength: 1, maxLength: bounds.by, description: "who takes it; the owner by default" }),
    ),
    origin: Type.Optional(origin),
    pinned: Type.Optional(
      Type.Boolean({ default: false, description: "whether it stays whatever the retention says" }),
    ),
  },
  { $id: "SnapshotRequest", ...closed, description: "without a label the time in UTC is one" },
);
true satisfies Same<Static<typeof snapshotBody>, SnapshotRequest>;

export const snapshotAnswer = Type.Object(
  {
    snapshot: Type.String({ description: "its label" }),
    size: Type.Integer({ description: "bytes of its image" }),
    paused_ms: Type.Number({ description: "for how long nothing ran in the sandbox" }),
    removed: labels,
    durable: Type.Optional(Type.Literal(true, { description: "the bucket has it; only where that was waited for" })),
  },
  { $id: "SnapshotAnswer" },
);
true satisfies Same<Static<typeof snapshotAnswer>, SnapshotAnswer>;

export const snapshotQuery = Type.Object(
  {
    wait: Type.Optional(
      Type.Literal("durable", { description: "answers once the bucket has it; a failure leaves the snapshot here" }),
    ),
  },
  closed,
);

export const restoreBody = Type.Object({ label, ...stackFields }, { $id: "RestoreRequest", ...closed });
true satisfies Same<Static<typeof restoreBody>, RestoreRequest>;

export const moduleBody = Type.Object({ module: label, ...stackFields }, { $id: "ModuleRequest", ...closed });
true satisfies Same<Static<typeof moduleBody>, ModuleRequest>;

export const forkBody = Type.Object(
  {
    target_id: Type.Optional(Type.String({ pattern: idPattern, description: "id of the one fork" })),
    count: Type.Optional(
      Type.Integer({ minimum: 1, maximum: bounds.forks, default: 1, description: "forks with ids that are made up" }),
    ),
    from: Type.Optional(Type.String({ pattern: labelPattern, description: "a snapshot; the present by default" })),
    secrets: Type.Optional(grantedNames),
  },
  { $id: "ForkRequest", ...closed },
);
true satisfies Same<Static<typeof forkBody>, ForkRequest>;

export const historyEntry = Type.Object(
  {
    label: Type.String(),
    parent: nullable(Type.String({ description: "what it was taken after" })),
    created: time("when it was taken"),
    size: Type.Integer({ description: "bytes of its image" }),
    layers: Type.Array(Type.String(), { description: "module names then, topmost first" }),
    depth: Type.Integer({
      description: "images that make up its files, its own included; fewer once the background has merged them",
    }),
    total_size: Type.Integer({ description: "bytes of all these images, of which other snapshots may share some" }),
    sha256: nullable(Type.String({ description: "of its topmost image; null until it is known" })),
    by: nullable(Type.String({ description: "who took it, as the request said" })),
    origin: nullable(origin),
    pinned: Type.Boolean({ description: "whether it stays whatever the retention says" }),
    active: Type.Boolean({ description: "whether it was restored last" }),
    head: Type.Boolean({ description: "whether it is what the next one is taken after" }),
  },
  { $id: "HistoryEntry" },
);
true satisfies Same<Static<typeof historyEntry>, HistoryEntry>;

const keepLast = Type.Integer({
  minimum: 0,
  maximum: bounds.keepLast,
  description: "newest that stay; 0 says nothing",
});
const keepForS = Type.Integer({
  minimum: 0,
  maximum: bounds.lifetimeS.max,
  description: "seconds for which one stays; 0 says nothing",
});

/** Part of what is shown of a sandbox. */
export const retention = Type.Object(
  { keep_last: keepLast, keep_for_s: keepForS },
  { description: "which snapshots stay: those that either of the two keeps; where both are 0, all" },
);
true satisfies Same<Static<typeof retention>, Retention>;

export const retentionBody = Type.Object(
  { keep_last: Type.Optional(keepLast), keep_for_s: Type.Optional(keepForS) },
  { $id: "RetentionRequest", ...closed, description: "an absent field is the daemon's setting" },
);
true satisfies Same<Static<typeof retentionBody>, RetentionRequest>;

export const retentionAnswer = Type.Object(
  { keep_last: keepLast, keep_for_s: keepForS, removed: labels },
  { $id: "RetentionAnswer" },
);
true satisfies Same<Static<typeof retentionAnswer>, RetentionAnswer>;

export const snapshotChange = Type.Object(
  { pinned: Type.Boolean({ description: "whether it stays whatever the retention says" }) },
  { $id: "SnapshotChange", ...closed },
);
true satisfies Same<Static<typeof snapshotChange>, SnapshotChange>;

export const promoteBody = Type.Object(
  {
    snapshot: label,
    module: Type.String({ minLength: 1, maxLength: 128, description: "name of the module" }),
    replace: Type.Optional(Type.Boolean({ default: false, description: "whether there may be one of that name" })),
    formats: moduleFormats,
  },
  { $id: "PromoteRequest", ...closed },
);
true satisfies Same<Static<typeof promoteBody>, PromoteRequest>;

export const collectBody = Type.Object(
  { dry_run: Type.Optional(Type.Boolean({ default: false, description: "only says what would go" })) },
  { $id: "CollectRequest", ...closed },
);
true satisfies Same<Static<typeof collectBody>, CollectRequest>;

export const collectAnswer = Type.Object(
  {
    images: Type.Array(Type.String(), { description: "images of snapshots that no sandbox uses" }),
    files: Type.Array(Type.String(), {
      description: "files and folders of caches and of work that broke off, relative to the data directory",
    }),
    bytes: Type.Integer({ description: "freed, or with dry_run to be freed" }),
  },
  { $id: "CollectAnswer" },
);
true satisfies Same<Static<typeof collectAnswer>, CollectAnswer>;

export const labelParams = Type.Object({
  id: Type.String({ description: "the sandbox's id" }),
  label: Type.String({ description: "the snapshot's label" }),
});

export const timeSchemas = [
  snapshotBody,
  snapshotAnswer,
  restoreBody,
  moduleBody,
  forkBody,
  historyEntry,
  retentionBody,
  retentionAnswer,
  snapshotChange,
  promoteBody,
  collectBody,
  collectAnswer,
];

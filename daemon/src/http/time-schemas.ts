import { Type, type Static } from "@sinclair/typebox";
import type {
  CollectAnswer,
  CollectRequest,
  ForkRequest,
  HistoryEntry,
  ModuleRequest,
  RestoreRequest,
  RunningPolicy,
  SnapshotAnswer,
  SnapshotRequest,
} from "@squash/sdk/protocol";
import { bounds, idPattern, labelPattern } from "../core/validate.js";
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

export const snapshotBody = Type.Object(
  { label: Type.Optional(label) },
  { $id: "SnapshotRequest", ...closed, description: "without a label the time in UTC is one" },
);
true satisfies Same<Static<typeof snapshotBody>, SnapshotRequest>;

export const snapshotAnswer = Type.Object(
  {
    snapshot: Type.String({ description: "its label" }),
    size: Type.Integer({ description: "bytes of its image" }),
    paused_ms: Type.Number({ description: "for how long nothing ran in the sandbox" }),
  },
  { $id: "SnapshotAnswer" },
);
true satisfies Same<Static<typeof snapshotAnswer>, SnapshotAnswer>;

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
    depth: Type.Integer({ description: "images that make up its files, its own included" }),
    active: Type.Boolean({ description: "whether it was restored last" }),
  },
  { $id: "HistoryEntry" },
);
true satisfies Same<Static<typeof historyEntry>, HistoryEntry>;

export const collectBody = Type.Object(
  { dry_run: Type.Optional(Type.Boolean({ default: false, description: "only says what would go" })) },
  { $id: "CollectRequest", ...closed },
);
true satisfies Same<Static<typeof collectBody>, CollectRequest>;

export const collectAnswer = Type.Object(
  {
    images: Type.Array(Type.String(), { description: "images of snapshots that no sandbox uses" }),
    bytes: Type.Integer({ description: "that were freed" }),
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
  collectBody,
  collectAnswer,
];

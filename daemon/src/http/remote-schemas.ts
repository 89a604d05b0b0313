import { Type, type Static } from "@sinclair/typebox";
import type { QueueEntryInfo, RemoteModuleInfo, RemoteSnapshotInfo, RemoteStatus } from "@squash/sdk/protocol";
import { closed, nullable, time, type Same } from "./schema-parts.js";

const oneOf = <const T extends string>(values: readonly T[], description: string) =>
  Type.Unsafe<T>({ type: "string", enum: [...values], description });

export const remoteStatus = Type.Object(
  {
    bucket: nullable(Type.String({ description: "null where none is configured" })),
    endpoint: nullable(Type.String({ description: "null for Amazon's" })),
    prefix: Type.String(),
    encrypted: Type.Boolean({ description: "whether all is encrypted before it is sent" }),
    queued: Type.Integer({ description: "things that wait to be sent" }),
    last_sync: nullable(time("of the last comparison with the bucket that came to its end; null for none yet")),
    sync_error: nullable(Type.String({ description: "why the last one did not; null where it did" })),
  },
  { $id: "RemoteStatus" },
);
true satisfies Same<Static<typeof remoteStatus>, RemoteStatus>;

export const queueEntry = Type.Object(
  {
    kind: oneOf(["module", "snapshot", "remove-snapshot"], "what is to be done"),
    subject: Type.String({ description: "name of a module, or id@label of a snapshot" }),
    added: time("when it was added"),
    attempts: Type.Integer({ description: "tries that have failed" }),
    next: nullable(time("when it is tried next; null for as soon as possible")),
    error: nullable(Type.String({ description: "of the last try" })),
    code: nullable(Type.String()),
  },
  { $id: "QueueEntry" },
);
true satisfies Same<Static<typeof queueEntry>, QueueEntryInfo>;

export const remoteModule = Type.Object(
  {
    name: Type.String(),
    format: nullable(oneOf(["squashfs", "erofs"], "of its image; null where it cannot be read")),
    size: Type.Integer({ description: "bytes; 0 where it cannot be read" }),
    sha256: nullable(
      Type.String({ description: "null where it cannot be read, or where an older daemon has put it there" }),
    ),
    here: oneOf(["same", "different", "no"], "whether this machine has it too, or another one of that name"),
    older: Type.Boolean({ description: "whether it lies there in the form of an older daemon" }),
    problem: nullable(Type.String({ description: "why it cannot be read, as where it is damaged" })),
  },
  { $id: "RemoteModule" },
);
true satisfies Same<Static<typeof remoteModule>, RemoteModuleInfo>;

export const remoteSnapshot = Type.Object(
  {
    id: Type.String({ description: "of the sandbox" }),
    label: Type.String(),
    created: nullable(time("when it was taken; null where it cannot be read")),
    size: Type.Integer({ description: "bytes of all its images; 0 where it cannot be read" }),
    layers: Type.Array(Type.String(), { description: "none where an older daemon has put it there" }),
    older: Type.Boolean({ description: "whether it lies there in the form of an older daemon" }),
    problem: nullable(Type.String({ description: "why it cannot be read, as where it is damaged" })),
  },
  { $id: "RemoteSnapshot" },
);
true satisfies Same<Static<typeof remoteSnapshot>, RemoteSnapshotInfo>;

export const remoteSnapshotQuery = Type.Object(
  { id: Type.Optional(Type.String({ maxLength: 64, description: "only of that sandbox" })) },
  closed,
);

export const remoteSchemas = [remoteStatus, queueEntry, remoteModule, remoteSnapshot];

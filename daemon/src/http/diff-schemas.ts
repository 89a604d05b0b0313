import { Type, type Static } from "@sinclair/typebox";
import type { DiffAnswer, DiffChange, DiffEntry, DiffFileAnswer, DiffFileType } from "@squash/sdk/protocol";
import { nullable, type Same } from "./schema-parts.js";

const fileTypes: DiffFileType[] = ["fifo", "character", "directory", "block", "file", "symlink", "socket"];
const changes: DiffChange[] = ["mode", "owner", "mtime", "xattrs", "content", "type"];
const kinds: DiffFileAnswer["kind"][] = ["same", "added", "modified", "deleted", "metadata"];
const fileType = Type.Unsafe<DiffFileType>({ type: "string", enum: fileTypes });
const size = nullable(Type.Integer({ description: "bytes, of a link those of its target; null where there is none" }));

const diffEntry = Type.Object(
  {
    path: Type.String({ description: 'from "/" on; bytes that are no UTF-8 are U+FFFD' }),
    path_base64: Type.Optional(Type.String({ description: "its bytes, only where `path` cannot say them" })),
    type: fileType,
    old_type: Type.Optional(fileType),
    old_size: size,
    new_size: size,
    changes: Type.Array(Type.Unsafe<DiffChange>({ type: "string", enum: changes })),
  },
  { $id: "DiffEntry" },
);
true satisfies Same<Static<typeof diffEntry>, DiffEntry>;

const entries = Type.Array(Type.Unsafe<DiffEntry>(Type.Ref("DiffEntry")));
const ok = Type.Literal(true);
const side = Type.String({ description: "as it was understood" });

export const diffAnswer = Type.Object(
  {
    ok,
    from: side,
    to: side,
    added: entries,
    modified: entries,
    deleted: entries,
    metadata: entries,
    totals: Type.Object({
      added: Type.Integer(),
      modified: Type.Integer(),
      deleted: Type.Integer(),
      metadata: Type.Integer(),
    }),
    truncated: Type.Boolean({ description: "whether there is more than is listed" }),
  },
  { $id: "DiffAnswer" },
);
true satisfies Same<Static<typeof diffAnswer>, DiffAnswer>;

export const diffFileAnswer = Type.Object(
  {
    ok,
    from: side,
    to: side,
    kind: Type.Unsafe<DiffFileAnswer["kind"]>({ type: "string", enum: kinds }),
    entry: Type.Unsafe<DiffEntry>(Type.Ref("DiffEntry")),
    binary: Type.Boolean({ description: "whether a side is no text" }),
    too_large: Type.Boolean({ description: "whether a side is too large for a unified diff" }),
    diff: nullable(Type.String({ description: "a unified diff" })),
  },
  { $id: "DiffFileAnswer" },
);
true satisfies Same<Static<typeof diffFileAnswer>, DiffFileAnswer>;

const text = (description: string) => Type.Optional(Type.String({ description }));

export const diffQuery = Type.Object(
  {
    from: text("base, live, a label, @<sandbox> or @<sandbox>/<label>; the snapshot taken or restored last, or base"),
    to: text("the same; live by default"),
    path: text("answers with the unified diff of that file alone"),
    path_base64: text("the same, for bytes that are no UTF-8"),
    format: Type.Optional(
      Type.Unsafe<"json" | "tar">({
        type: "string",
        enum: ["json", "tar"],
        description: "a tar file like an OCI layer",
      }),
    ),
    limit: Type.Optional(
      Type.String({ pattern: "^[1-9][0-9]{0,5}$", description: "entries listed; 10000 by default" }),
    ),
  },
  { additionalProperties: false },
);

export const diffSchemas = [diffEntry, diffAnswer, diffFileAnswer];

import { Type, type Static } from "@sinclair/typebox";
import type { ModuleFormat, ModuleInfo } from "@squash/sdk/protocol";
import { closed, nullable, time, type Same } from "./schema-parts.js";

export const moduleFormat = Type.Unsafe<ModuleFormat>({ type: "string", enum: ["squashfs", "erofs"] });

export const moduleFormats = Type.Optional(Type.Array(moduleFormat, { minItems: 1, maxItems: 2, uniqueItems: true }));

const moduleDefaults = Type.Object(
  {
    env: Type.Record(Type.String(), Type.String()),
    workdir: Type.String({ description: "an absolute path, or empty" }),
    user: Type.String({ description: "a name or a number, or empty" }),
    entrypoint: Type.Array(Type.String()),
    cmd: Type.Array(Type.String()),
  },
  { description: "how its programs are meant to be started; null where it does not say" },
);

export const moduleInfo = Type.Object(
  {
    name: Type.String(),
    size: Type.Integer({ description: "bytes of the image; 0 for remote ones" }),
    location: Type.Union([Type.Literal("local"), Type.Literal("remote")]),
    format: moduleFormat,
    formats: Type.Array(moduleFormat, { description: "of all its images that this machine can use" }),
    sha256: nullable(Type.String({ description: "of the image that a sandbox would get, by its manifest" })),
    created: nullable(time("when it was made")),
    source: nullable(Type.String({ description: "what made it" })),
    requires: Type.Array(Type.String(), { description: "modules that a stack with this one must have" }),
    conflicts: Type.Array(Type.String(), { description: "modules that it must not have" }),
    defaults: nullable(moduleDefaults),
    used_by: Type.Array(Type.String(), { description: "ids of the sandboxes that use it" }),
    problem: nullable(Type.String({ description: "why it cannot be used, and what to do" })),
  },
  { $id: "Module" },
);
true satisfies Same<Static<typeof moduleInfo>, ModuleInfo>;

const names = (description: string) => Type.Optional(Type.String({ maxLength: 8192, description }));

/** What comes with something that is sent as bytes. */
export const uploadQuery = {
  sha256: Type.Optional(
    Type.String({ pattern: "^[0-9A-Fa-f]{64}$", description: "of the body; Content-Digest says the same" }),
  ),
  replace: Type.Optional(
    Type.Union([Type.Literal("true"), Type.Literal("false")], { description: "whether there may be one of that name" }),
  ),
  requires: names(
    "names of modules that a stack with this one must have, separated by commas; without it what an image says of itself",
  ),
  conflicts: names("names of modules that it must not have; as requires"),
};

export const putModuleQuery = Type.Object(uploadQuery, closed);

export const moduleParams = Type.Object({ name: Type.String({ description: "the module's name" }) });

import { Type, type Static, type TSchema } from "@sinclair/typebox";
import { Value } from "@sinclair/typebox/value";
import { imageError } from "./image-error.js";

const digest = Type.String({ pattern: "^sha256:[0-9a-f]{64}$" });
const size = Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER });
const text = Type.String({ maxLength: 4_096 });
const descriptor = Type.Object({ mediaType: text, digest, size });

/** Where a part of an image lies, and what it must be. */
export type Descriptor = Static<typeof descriptor>;

const platform = Type.Object({ os: text, architecture: text, variant: Type.Optional(text) });
const annotations = Type.Optional(Type.Record(Type.String(), Type.String()));

const index = Type.Object({
  schemaVersion: Type.Literal(2),
  mediaType: Type.Optional(text),
  manifests: Type.Array(Type.Composite([descriptor, Type.Object({ platform: Type.Optional(platform), annotations })]), {
    maxItems: 1_000,
  }),
});

/** A list of manifests: docker's manifest list, or OCI's index. */
export type ImageIndex = Static<typeof index>;

const manifest = Type.Object({
  schemaVersion: Type.Literal(2),
  mediaType: Type.Optional(text),
  config: descriptor,
  layers: Type.Array(descriptor, { maxItems: 256 }),
});

/** What one image consists of. */
export type ImageManifest = Static<typeof manifest>;

const words = Type.Array(Type.String({ maxLength: 65_536 }), { maxItems: 4_096 });
const nullable = <T extends TSchema>(schema: T) => Type.Optional(Type.Union([schema, Type.Null()]));

const config = Type.Object({
  architecture: Type.Optional(text),
  os: Type.Optional(text),
  variant: Type.Optional(text),
  config: nullable(
    Type.Object({
      Env: nullable(words),
      WorkingDir: nullable(text),
      User: nullable(text),
      Entrypoint: nullable(words),
      Cmd: nullable(words),
    }),
  ),
  rootfs: Type.Object({ type: Type.Literal("layers"), diff_ids: Type.Array(digest, { maxItems: 256 }) }),
});

/** How an image runs, and the digests of its layers when they are not compressed. */
export type ImageConfig = Static<typeof config>;

const saved = Type.Array(
  Type.Object({ Config: text, RepoTags: nullable(Type.Array(text)), Layers: Type.Array(text, { maxItems: 256 }) }),
  { minItems: 1, maxItems: 1_000 },
);

/** `manifest.json` of what `docker save` writes. */
export type SavedImages = Static<typeof saved>;

const indexTypes = [
  "application/vnd.oci.image.index.v1+json",
  "application/vnd.docker.distribution.manifest.list.v2+json",
];
const manifestTypes = [
  "application/vnd.oci.image.manifest.v1+json",
  "application/vnd.docker.distribution.manifest.v2+json",
];
const layerType =
  /^application\/vnd\.(?:oci\.image\.layer\.v1\.tar(?:\+gzip|\+zstd)?|docker\.image\.rootfs\.diff\.tar(?:\.gzip|\.zstd)?)$/;

/** What a registry is asked for. */
export const acceptedTypes: string = [...manifestTypes, ...indexTypes].join(", ");

/** Whether a layer is of a kind that can be unpacked, and is handed out by the registry itself. */
export function isLayerType(mediaType: string): boolean {
  return layerType.test(mediaType);
}

/** Reads a manifest or a list of them. Throws `build_failed` for other things, and for what could be read as both. */
export function parseManifest(bytes: Buffer): ImageManifest | ImageIndex {
  const value = parseJson(bytes, "its manifest");
  const has = (key: string): boolean => typeof value === "object" && value !== null && key in value;
  // each reader would take it for something else: CVE-2021-41190
  if (has("manifests") && (has("layers") || has("config"))) throw imageError("its manifest is a list as well");
  const [schema, types] = has("manifests") ? [index, indexTypes] : [manifest, manifestTypes];
  if (!Value.Check(schema, value)) throw imageError(`its manifest is ${whatIsWrong(schema, value)}`);
  if (value.mediaType !== undefined && !types.includes(value.mediaType))
    throw imageError(`its manifest is of the type ${JSON.stringify(value.mediaType.slice(0, 200))}`);
  return value;
}

/** Throws `build_failed`. */
export function parseConfig(bytes: Buffer): ImageConfig {
  const value = parseJson(bytes, "its configuration");
  if (!Value.Check(config, value)) throw imageError(`its configuration is ${whatIsWrong(config, value)}`);
  return value;
}

/** Throws `build_failed`. */
export function parseSaved(bytes: Buffer): SavedImages {
  const value = parseJson(bytes, "its manifest.json");
  if (!Value.Check(saved, value)) throw imageError(`its manifest.json is ${whatIsWrong(saved, value)}`);
  return value;
}

function parseJson(bytes: Buffer, what: string): unknown {
  try {
    return JSON.parse(bytes.toString("utf8")) as unknown;
  } catch (cause) {
    throw imageError(`${what} is no JSON`, cause);
  }
}

function whatIsWrong(schema: TSchema, value: unknown): string {
  const first = Value.Errors(schema, value).First();
  return first === undefined ? "wrong" : `wrong at "${first.path.slice(0, 200)}" (${first.message.toLowerCase()})`;
}

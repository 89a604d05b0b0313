import { parseArgs } from "node:util";
import { formatsOf, UsageError } from "./mkbase-options.js";
import type { ModuleFormat } from "./module-name.js";

/** What a person asked `mkmod from-oci` for. */
export interface MkmodRequest {
  /** of a registry's image; with a layout or archive, what the image is called in it, null where there is one only */
  readonly reference: string | null;
  readonly layout: string | null;
  readonly archive: string | null;
  readonly name: string | null;
  readonly perLayer: boolean;
  /** null for this machine's */
  readonly platform: string | null;
  readonly insecure: boolean;
  readonly authfile: string | null;
  readonly force: boolean;
  readonly formats: readonly ModuleFormat[];
}

export const mkmodUsage = `Usage: squashd mkmod from-oci <reference> [options]
       squashd mkmod from-oci --layout <directory> [name in it] [options]
       squashd mkmod from-oci --archive <file> [name in it] [options]

Makes a base module of a container image: from a registry, from an OCI layout, or from
what docker save has written.

Options:
  --name <name>          of the module; default 000-<repository>-<tag>
  --per-layer            make a module of each layer, to be stacked in their order
  --platform <os/arch>   instead of this machine's, such as linux/arm64
  --authfile <file>      user names and passwords, in the form of docker's config.json
  --insecure             allow plain HTTP; without it only for registries on this machine
  --force                replace modules of the same name
  --format <format>      squashfs, erofs or both (default)
`;

/** Throws `UsageError`. */
export function parseMkmod(args: readonly string[]): MkmodRequest {
  const { values, positionals } = parse(args);
  const [kind, reference, more] = positionals;
  if (kind === undefined) throw new UsageError("a kind of module is missing");
  if (kind !== "from-oci") throw new UsageError(`there is no kind "${kind}", known is from-oci`);
  if (more !== undefined) throw new UsageError(`"${more}" is too much for from-oci`);
  const { layout, archive, authfile, insecure = false } = values;
  const isStored = layout !== undefined || archive !== undefined;
  if (layout !== undefined && archive !== undefined) throw new UsageError("--layout and --archive exclude each other");
  if (!isStored && reference === undefined)
    throw new UsageError("from-oci needs the reference of an image, --layout or --archive");
  if (isStored && (insecure || authfile !== undefined))
    throw new UsageError("--insecure and --authfile are for registries");
  return {
    reference: reference ?? null,
    layout: layout ?? null,
    archive: archive ?? null,
    name: values.name ?? null,
    perLayer: values["per-layer"] ?? false,
    platform: values.platform ?? null,
    insecure,
    authfile: authfile ?? null,
    force: values.force ?? false,
    formats: formatsOf(values.format ?? "both"),
  };
}

function parse(args: readonly string[]) {
  const [text, flag] = [{ type: "string" } as const, { type: "boolean" } as const];
  const options = {
    layout: text,
    archive: text,
    name: text,
    "per-layer": flag,
    platform: text,
    authfile: text,
    insecure: flag,
    force: flag,
    format: text,
  };
  try {
    return parseArgs({ args: [...args], options, allowPositionals: true, strict: true });
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
}

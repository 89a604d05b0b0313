import { parseArgs } from "node:util";
import { isModuleName } from "../core/validate.js";
import { moduleFormats, type ModuleFormat } from "./module-name.js";

const kinds = ["busybox", "debian", "from-dir", "alpine", "ubuntu", "void", "list"] as const;

export type BaseKind = (typeof kinds)[number];

/** What a person asked `mkbase` for. */
export interface MkbaseRequest {
  readonly kind: BaseKind;
  /** what follows the kind */
  readonly operands: readonly string[];
  readonly name: string | null;
  readonly force: boolean;
  readonly url: string | null;
  readonly sha256: string | null;
  readonly packages: readonly string[] | null;
  readonly formats: readonly ModuleFormat[];
  /** modules that a stack with it must have */
  readonly requires: readonly string[];
  /** modules that it must not have */
  readonly conflicts: readonly string[];
}

/** A misuse of the command line; the message is for the person who typed it. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}

export const mkbaseUsage = `Usage: squashd mkbase <kind> [options]

Kinds:
  busybox                  the host's static busybox; needs no network
  debian [release]         from the mirrors of this machine's apt (bookworm)
  from-dir <path> <name>   the files of a directory
  alpine, ubuntu, void     a root file system; needs --url and --sha256
  list                     what bases there are

Options:
  --name <name>      of the module; default 000-base-<kind>
  --force            replace a module of that name
  --url <address>    of the root file system (tar, plain or gzip, xz, zstd)
  --sha256 <hex>     what it must be
  --packages <a,b>   for debian, instead of the usual ones
  --requires <a,b>   modules that a stack with it must have
  --conflicts <a,b>  modules that it must not have
  --format <format>  squashfs, erofs or both (default)
`;

/** Throws `UsageError`. */
export function parseMkbase(args: readonly string[]): MkbaseRequest {
  const { values, positionals } = parse(args);
  const [kind, ...operands] = positionals;
  if (kind === undefined) throw new UsageError("a kind of base is missing");
  if (!isKind(kind)) throw new UsageError(`there is no kind "${kind}", known are ${kinds.join(", ")}`);
  const request: MkbaseRequest = {
    kind,
    operands,
    name: values.name ?? null,
    force: values.force ?? false,
    url: values.url ?? null,
    sha256: values.sha256 ?? null,
    packages: values.packages === undefined ? null : listOf(values.packages),
    formats: formatsOf(values.format ?? "both"),
    requires: moduleNames(values.requires),
    conflicts: moduleNames(values.conflicts),
  };
  checkOperands(request);
  return request;
}

function parse(args: readonly string[]) {
  try {
    const text = { type: "string" } as const;
    const options = {
      name: text,
      force: { type: "boolean" },
      url: text,
      sha256: text,
      packages: text,
      format: text,
      requires: text,
      conflicts: text,
    } as const;
    return parseArgs({ args: [...args], options, allowPositionals: true, strict: true });
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
}

function checkOperands({ kind, operands, name, url, sha256, packages }: MkbaseRequest): void {
  const wanted = kind === "from-dir" ? (name === null ? [2, 2] : [1, 2]) : kind === "debian" ? [0, 1] : [0, 0];
  const [least = 0, most = 0] = wanted;
  if (operands.length < least) throw new UsageError("from-dir needs a path and a name");
  if (operands.length > most) throw new UsageError(`"${operands[most]}" is too much for ${kind}`);
  if (packages !== null && kind !== "debian") throw new UsageError(`--packages is for debian, not for ${kind}`);
  const isTarball = kind === "alpine" || kind === "ubuntu" || kind === "void";
  if (!isTarball && (url !== null || sha256 !== null))
    throw new UsageError(`--url and --sha256 are for alpine, ubuntu and void, not for ${kind}`);
  if (isTarball && (url === null || sha256 === null)) {
    throw new UsageError(
      `${kind} needs --url ADDRESS --sha256 HEX: the address of the root file system of your machine's kind on the distribution's download ` +
        "page (a tar file, packed by gzip, xz, zstd or nothing), and the sha256 that is printed there",
    );
  }
}

/** Formats of the word behind `--format`. Throws `UsageError`. */
export function formatsOf(format: string): readonly ModuleFormat[] {
  if (format === "both") return moduleFormats;
  const formats = moduleFormats.filter((known) => known === format);
  if (formats.length === 0)
    throw new UsageError(`there is no format "${format}", known are ${moduleFormats.join(", ")}, both`);
  return formats;
}

function moduleNames(text = ""): readonly string[] {
  const names = listOf(text);
  const wrong = names.find((name) => !isModuleName(name));
  if (wrong !== undefined) throw new UsageError(`"${wrong}" cannot be the name of a module`);
  return names;
}

function listOf(text: string): readonly string[] {
  return text
    .split(",")
    .map((name) => name.trim())
    .filter((name) => name !== "");
}

function isKind(kind: string): kind is BaseKind {
  return (kinds as readonly string[]).includes(kind);
}

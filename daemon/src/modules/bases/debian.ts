import { mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { SquashError } from "@squash/sdk/errors";
import { Cleanup } from "../cleanup.js";
import { packDirectory, type ModuleManifest } from "../pack.js";
import { runTool } from "../run-tool.js";
import { readSources, renderSources, sourcesOf, withoutCredentials, type AptSource } from "./apt-sources.js";
import { scratchDirectory, type BaseOptions } from "./base.js";

const deadlineMs = 30 * 60_000;

/** Packages beyond those that Debian calls required. */
export const debianPackages: readonly string[] = "ca-certificates curl git jq less procps python3 xz-utils".split(" ");

const unneeded = ["/usr/share/man/*", "/usr/share/info/*", "/usr/share/doc/*", "/usr/share/locale/*"];
const neededStill = ["/usr/share/doc/*/copyright"];

/** Files of the host, of the build, or made again on demand. */
const leftovers = [
  ..."etc/resolv.conf etc/hostname etc/machine-id etc/passwd- etc/group- etc/shadow- etc/gshadow-".split(" "),
  ..."etc/apt/apt.conf.d/99mmdebstrap etc/dpkg/dpkg.cfg.d/99mmdebstrap etc/apt/sources.list.d".split(" "),
  ..."var/lib/apt/lists var/cache/apt var/cache/ldconfig var/log".split(" "),
];
const directories = [
  "etc/apt/sources.list.d",
  "var/lib/apt/lists/partial",
  "var/cache/apt/archives/partial",
  "var/log/apt",
];

/** Settings of apt that reach a mirror; the host's others are its own business. */
const passedSettings = [
  "Acquire::http::Proxy",
  "Acquire::https::Proxy",
  "Acquire::Check-Valid-Until",
  "Acquire::Check-Date",
];

export interface DebianOptions extends BaseOptions {
  /** code name; @default "bookworm" */
  readonly release?: string;
  /** @default `debianPackages` */
  readonly packages?: readonly string[];
}

/** The command that fills `root`; it reads the sources from standard input. A mount namespace of its own takes its mounts along when it dies. */
export function mmdebstrapCommand(
  root: string,
  options: { release: string; packages: readonly string[]; settings: readonly string[] },
): [string, ...string[]] {
  return [
    "unshare",
    ..."--mount --propagation private -- mmdebstrap --mode=root --variant=minbase --format=directory".split(" "),
    ...(options.packages.length === 0 ? [] : [`--include=${options.packages.join(",")}`]),
    ...unneeded.map((pattern) => `--dpkgopt=path-exclude=${pattern}`),
    ...neededStill.map((pattern) => `--dpkgopt=path-include=${pattern}`),
    ...options.settings.map((setting) => `--aptopt=${setting}`),
    options.release,
    root,
    "-",
  ];
}

/** Builds a Debian base from the mirrors that this machine's apt uses. Throws `build_failed`, `invalid_request`. */
export async function buildDebian(options: DebianOptions): Promise<ModuleManifest> {
  const { release = "bookworm", packages = debianPackages, run = runTool } = options;
  checkWords(release, packages);
  const sources = chooseSources(release, await readSources());
  await using cleanup = new Cleanup();
  const root = join(await scratchDirectory(options.dataDir, cleanup), "root");
  const limits = options.signal === undefined ? {} : { signal: options.signal };
  const dump = await run(["apt-config", "dump", "--format", "%f %v%n", ...passedSettings], {
    op: "read settings of",
    target: "apt",
    deadlineMs: 10_000,
    ...limits,
  });
  const argv = mmdebstrapCommand(root, { release, packages, settings: parseSettings(dump) });
  options.progress(`installing Debian ${release} with ${packages.join(", ")}`);
  await run(argv, { op: "install Debian", target: release, stdin: renderSources(sources), deadlineMs, ...limits });
  for (const path of leftovers) await rm(join(root, path), { recursive: true, force: true });
  for (const path of directories) await mkdir(join(root, path), { recursive: true, mode: 0o755 });
  await writeFile(join(root, "etc/apt/sources.list"), renderSources(sources.map(withoutCredentials)), { mode: 0o644 });
  options.progress("packing it");
  return await packDirectory(root, options);
}

/** The settings of an `apt-config dump` as lines of apt.conf; empty ones are left out. */
export function parseSettings(dump: string): string[] {
  return dump
    .split("\n")
    .map((line) => /^(\S+) (.+)$/.exec(line))
    .flatMap((match) =>
      match?.[1] === undefined || !passedSettings.includes(match[1]) ? [] : [`${match[1]} "${match[2]}";`],
    );
}

/** Throws `build_failed` when the machine knows no mirror of the release. */
export function chooseSources(release: string, all: readonly AptSource[]): AptSource[] {
  const sources = sourcesOf(release, all);
  if (sources.some(({ suite }) => suite === release)) return sources;
  const known = [...new Set(all.map(({ suite }) => suite))];
  const found = known.length === 0 ? "has no package source" : `has only ${known.join(", ")}`;
  throw new SquashError(
    "build_failed",
    `Cannot install Debian "${release}": /etc/apt ${found}; add a source of that release there`,
  );
}

function checkWords(release: string, packages: readonly string[]): void {
  for (const word of [release, ...packages]) {
    if (/^[a-z0-9][a-z0-9+.-]*$/.test(word)) continue;
    throw new SquashError(
      "invalid_request",
      `Cannot install ${JSON.stringify(word)}: it is no name of a Debian release or package`,
    );
  }
}

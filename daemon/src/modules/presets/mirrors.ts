import { lookup } from "node:dns/promises";
import { isIP } from "node:net";
import { SquashError } from "@squash/sdk/errors";
import { parsePolicy } from "../../core/egress/policy.js";
import { readSources } from "../bases/apt-sources.js";
import { parseSettings } from "../bases/debian.js";
import { runTool, type RunTool } from "../run-tool.js";

const maxMirrors = 32;

/** What the operator has set this machine up for. */
export interface MachineMirrors {
  /** addresses of package servers, and of proxies before them */
  readonly urls: readonly string[];
  /** settings for apt that reach them, such as `Acquire::http::Proxy=http://proxy:3142` */
  readonly settings: readonly string[];
  readonly resolve: (host: string) => Promise<readonly string[]>;
}

/** Reads what apt is set up for on this machine; nothing where it has no apt. Passwords do not leave it. */
export async function readMachineMirrors(run: RunTool = runTool): Promise<MachineMirrors> {
  const sources = await readSources().catch(() => []);
  const asked = ["Acquire::http::Proxy", "Acquire::https::Proxy", "Acquire::Check-Valid-Until", "Acquire::Check-Date"];
  const dump = await run(["apt-config", "dump", "--format", "%f %v%n", ...asked], {
    op: "read settings of",
    target: "apt",
    deadlineMs: 10_000,
  }).catch(() => "");
  const settings = parseSettings(dump)
    .map((line) => line.replace(/^(\S+) "(.*)";$/, "$1=$2"))
    .filter((setting) => !/:\/\/[^/]*@/.test(setting));
  const proxies = settings.map((setting) => /^Acquire::https?::Proxy=(.*)$/.exec(setting)?.[1] ?? "");
  return {
    urls: [...sources.map(({ uri }) => uri), ...proxies.filter((url) => url !== "")],
    settings,
    resolve: async (host) => (await lookup(host, { all: true })).map(({ address }) => address),
  };
}

/**
 * What a sandbox must reach to install packages: the servers that its base names, and the proxies of this machine. An address that is not public
 * is opened only where the operator named the same server in this machine's own configuration, as a base could have been made by anybody.
 * Throws `build_failed` where no server is named, or one that may not be reached.
 */
export async function mirrorPolicy(urls: readonly string[], machine: MachineMirrors): Promise<string[]> {
  const own = new Set(machine.urls.map((url) => serverOf(url)?.host));
  const proxies = machine.settings.flatMap((setting) => /Proxy=(.+)$/.exec(setting)?.[1] ?? []);
  const servers = [...urls, ...proxies].map(serverOf).filter((server) => server !== null);
  if (servers.length === 0)
    throw refused("its base names no package server that is asked by HTTP; say which with allow_net");
  const entries = new Set<string>();
  for (const { host, port } of servers) {
    const address = host.replace(/^\[(.*)\]$/, "$1");
    if (isIP(address) !== 0) {
      if (!isPublic(address) && !own.has(host))
        throw refused(`its base names the package server ${host}, which is not public; allow it with allow_net`);
      entries.add(`${host}:${port}`);
      continue;
    }
    entries.add(`${host}:${port}`);
    if (!own.has(host)) continue;
    for (const each of await machine.resolve(host).catch(() => []))
      if (!isPublic(each)) entries.add(`${isIP(each) === 6 ? `[${each}]` : each}:${port}`);
  }
  if (entries.size > maxMirrors) throw refused(`its base names more than ${maxMirrors} package servers`);
  return [...entries].toSorted();
}

function serverOf(text: string): { readonly host: string; readonly port: number } | null {
  if (!URL.canParse(text)) return null;
  const { protocol, hostname, port } = new URL(text);
  if (protocol !== "http:" && protocol !== "https:") return null;
  return { host: hostname, port: port === "" ? (protocol === "http:" ? 80 : 443) : Number(port) };
}

function isPublic(address: string): boolean {
  return parsePolicy({ allow: ["public.invalid"], deny: [] }, { subnets: [] }).acceptsAnswer(address).allowed;
}

function refused(why: string): SquashError {
  return new SquashError("build_failed", `Cannot install packages: ${why}`);
}

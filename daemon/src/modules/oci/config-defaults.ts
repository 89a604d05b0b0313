import type { ImageDefaults } from "../../core/image-defaults.js";
import type { ImageConfig } from "./image-schema.js";

const maxVariables = 128;
const maxEnvBytes = 65_536;

/** What an image's configuration says of how to start programs, without what a request could not say either. */
export function defaultsOf({ config }: ImageConfig): ImageDefaults {
  const workdir = config?.WorkingDir ?? "";
  // the group after the colon has no place in a request; commands get the groups of the user
  const user = (config?.User ?? "").replace(/:.*$/s, "");
  return {
    env: environmentOf(config?.Env ?? []),
    workdir: isWorkdir(workdir) ? workdir : "",
    user: isUser(user) ? user : "",
    entrypoint: config?.Entrypoint ?? [],
    cmd: config?.Cmd ?? [],
  };
}

function environmentOf(words: readonly string[]): Readonly<Record<string, string>> {
  const kept: [string, string][] = [];
  let bytes = 0;
  for (const word of words) {
    const [, name, value] = /^([A-Za-z_][A-Za-z0-9_]{0,255})=([^\0]*)$/s.exec(word) ?? [];
    if (name === undefined || value === undefined) continue;
    bytes += Buffer.byteLength(word);
    if (kept.length < maxVariables && bytes <= maxEnvBytes) kept.push([name, value]);
  }
  return Object.fromEntries(kept);
}

function isWorkdir(path: string): boolean {
  return path.startsWith("/") && path.length <= 512 && !path.includes("\0") && !path.split("/").includes("..");
}

function isUser(user: string): boolean {
  return /^\d+$/.test(user) ? Number(user) <= 65_535 : /^[A-Za-z_][A-Za-z0-9_.-]{0,30}\$?$/.test(user);
}

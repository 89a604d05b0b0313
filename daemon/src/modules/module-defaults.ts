import type { ModuleDefaults } from "@squash/sdk/protocol";
import type { ImageDefaults } from "../core/image-defaults.js";

const maxWords = 4_096;

/** What of a manifest's `defaults` a request could say as well; anything else counts as not said. */
export function checkedDefaults(value: unknown): ImageDefaults {
  const given = (typeof value === "object" ? (value ?? {}) : {}) as Partial<Record<keyof ImageDefaults, unknown>>;
  const { env, workdir, user, entrypoint, cmd } = given;
  return {
    env: Object.fromEntries(Object.entries(env ?? {}).filter(isVariable)),
    workdir: isWorkdir(workdir) ? workdir : "",
    user: isUser(user) ? user : "",
    entrypoint: wordsOf(entrypoint),
    cmd: wordsOf(cmd),
  };
}

/** The same as the API tells it. */
export function defaultsInfo(value: unknown): ModuleDefaults {
  const { env, entrypoint, cmd, ...rest } = checkedDefaults(value);
  return { ...rest, env: { ...env }, entrypoint: [...entrypoint], cmd: [...cmd] };
}

function isVariable(entry: [string, unknown]): entry is [string, string] {
  const [name, value] = entry;
  return /^[A-Za-z_][A-Za-z0-9_]{0,255}$/.test(name) && typeof value === "string" && !value.includes("\0");
}

function isWorkdir(path: unknown): path is string {
  return (
    typeof path === "string" &&
    path.startsWith("/") &&
    path.length <= 512 &&
    !path.includes("\0") &&
    !path.split("/").includes("..")
  );
}

function isUser(user: unknown): user is string {
  if (typeof user !== "string") return false;
  return /^\d+$/.test(user) ? Number(user) <= 65_535 : /^[A-Za-z_][A-Za-z0-9_.-]{0,30}\$?$/.test(user);
}

function wordsOf(words: unknown): string[] {
  if (!Array.isArray(words)) return [];
  return words.filter((word): word is string => typeof word === "string").slice(0, maxWords);
}

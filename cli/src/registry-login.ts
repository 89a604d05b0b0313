import { readFile } from "node:fs/promises";

import { UsageError } from "./exit-status.js";

const hubNames = ["https://index.docker.io/v1/", "docker.io", "index.docker.io", "registry-1.docker.io"];

/** The names under which passwords for the registry of an image reference may be kept. */
export function registryOf(reference: string): readonly string[] {
  const first = reference.slice(0, Math.max(0, reference.indexOf("/")));
  // what is before the first slash is a host only when it looks like one
  const isHost = /[.:A-Z]/.test(first) || first === "localhost";
  return !isHost || hubNames.includes(first) ? hubNames : [first];
}

/**
 * The user name and password for a registry in a file like docker's `config.json`; null when it has none for that one. Throws `UsageError`,
 * without showing what is in the file.
 */
export async function readLogin(
  path: string,
  names: readonly string[],
): Promise<{ username: string; password: string } | null> {
  const refused = (why: string): UsageError =>
    new UsageError(`Cannot read passwords of registries from "${path}": ${why}`);
  const text = await readFile(path, "utf8").catch((error: Error) => Promise.reject(refused(error.message)));
  let auths: Readonly<Record<string, { auth?: unknown } | undefined>>;
  try {
    auths = (JSON.parse(text) as { auths?: Record<string, { auth?: unknown }> }).auths ?? {};
  } catch {
    throw refused("it is no JSON");
  }
  const entry = names.map((name) => auths[name]).find((each) => each !== undefined);
  if (entry === undefined) return null;
  const login = typeof entry.auth === "string" ? Buffer.from(entry.auth, "base64").toString("utf8") : "";
  const colon = login.indexOf(":");
  if (colon <= 0) throw refused(`what it has for "${names[0] ?? ""}" is no "auth" of user name and password`);
  return { username: login.slice(0, colon), password: login.slice(colon + 1) };
}

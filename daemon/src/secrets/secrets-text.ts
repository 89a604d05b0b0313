import { SquashError, isSquashError } from "@squash/sdk/errors";
import { parseSecret, writeSecret, type WrittenSecret } from "../core/secrets/parse-secret.js";
import type { Secret } from "../core/secrets/secret.js";
import { unusable } from "./private-file.js";

/** Reads JSON without showing anything of it when it is none. Throws `secrets_unusable`. */
export function readJson(path: string, bytes: Buffer): unknown {
  const text = bytes.toString("utf8");
  if (!Buffer.from(text).equals(bytes)) throw unusable(path, "it is not UTF-8");
  try {
    return JSON.parse(text);
  } catch (error) {
    // the parser's own words have a piece of the text in them
    const position = /position (\d+)/.exec((error as Error).message)?.[1];
    const line = position === undefined ? "" : ` (line ${text.slice(0, Number(position)).split("\n").length})`;
    throw unusable(path, `it is not JSON${line}`);
  }
}

/** `{"secrets": {NAME: {…}}}`. Throws `secrets_unusable`. */
export function readSecrets(path: string, value: unknown): WrittenSecret[] {
  const isObject = (each: unknown): each is Record<string, unknown> =>
    typeof each === "object" && each !== null && !Array.isArray(each);
  if (!isObject(value) || !isObject(value["secrets"])) throw unusable(path, 'it must be {"secrets": {NAME: {…}}}');
  if (Object.keys(value).length > 1) throw unusable(path, 'it has something beside "secrets"');
  const secrets = value["secrets"];
  return inFile(path, () => Object.keys(secrets).map((name) => parseSecret(name, secrets[name])));
}

export function writeSecrets(secrets: readonly Secret[]): string {
  const byName = Object.fromEntries(secrets.map((secret) => [secret.name, writeSecret(secret)]));
  return `${JSON.stringify({ secrets: byName }, null, 2)}\n`;
}

/** What is wrong in a request is wrong in the file here. */
export function inFile<T>(path: string, work: () => T): T {
  try {
    return work();
  } catch (cause) {
    if (!isSquashError(cause)) throw cause;
    throw new SquashError("secrets_unusable", `${cause.message}; it is in ${path}`, { details: { ...cause.details } });
  }
}

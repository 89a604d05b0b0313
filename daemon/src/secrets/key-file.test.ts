import {
  chmodSync,
  copyFileSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { SecretStore } from "./secret-store.js";

const canary = "canary-5d02c1f7be46";
let folder: string;
let path: string;
let keyFile: string;
let reports: string[];
const stores: SecretStore[] = [];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "key-file-"));
  [path, keyFile] = [join(folder, "secrets.json"), join(folder, "key")];
  reports = [];
  writeFileSync(keyFile, Buffer.alloc(32, 7), { mode: 0o600 });
  const secrets = { A: { placeholder: "placeholder-1", value: canary, allowed_hosts: ["a.example"] } };
  writeFileSync(path, JSON.stringify({ secrets }), { mode: 0o600 });
});
afterEach(async () => {
  for (const store of stores.splice(0)) await store.close();
  rmSync(folder, { recursive: true });
  expect(reports.join()).not.toContain("canary");
});

async function open(key: string | null = keyFile): Promise<SecretStore> {
  const report = (error: unknown): void => void reports.push(String(error));
  const store = await SecretStore.open({ path, keyFile: key, report, pollMs: 60_000 });
  await store.start(() => Promise.resolve());
  stores.push(store);
  return store;
}

const values = (store: SecretStore): string[] => store.secrets.map(({ value }) => value);
const keyName = (): unknown => (JSON.parse(readFileSync(path, "utf8")) as { key: string }).key;

describe("another key", () => {
  it("takes the place of the one before, in the file of secrets and in its own", async () => {
    const store = await open();
    const [before, oldKey] = [keyName(), readFileSync(keyFile)];
    await store.rekey();
    expect(keyName()).not.toBe(before);
    expect(readFileSync(keyFile).equals(oldKey)).toBe(false);
    expect(readdirSync(folder).sort()).toEqual(["key", "secrets.json"]);
    await store.put("B", { value: canary, allowed_hosts: [] });
    expect(values(await open())).toEqual([canary, canary]);
    writeFileSync(keyFile, oldKey, { mode: 0o600 });
    expect((await open()).problem).toMatch(/encrypted with another key/);
  });

  it("is the one that lies beside it", async () => {
    const store = await open();
    const wanted = Buffer.alloc(32, 9).toString("hex");
    writeFileSync(`${keyFile}.next`, wanted, { mode: 0o600 });
    await store.rekey();
    expect(readFileSync(keyFile, "utf8")).toBe(wanted);
    expect(values(await open())).toEqual([canary]);
  });

  /** What there is when squashd dies after the step: each step is one file put in the place of another. */
  const steps = [
    ["the key was made", (): void => renameSync(`${folder}/secrets.before`, path)],
    ["the secrets were encrypted with it", (): void => rmSync(`${folder}/secrets.before`)],
  ] as const;
  it.each(steps)("that a crash cuts off after %s leaves the secrets as they were", async (_, undo) => {
    const store = await open();
    copyFileSync(path, `${folder}/secrets.before`);
    copyFileSync(keyFile, `${folder}/key.before`);
    await store.rekey();
    await store.close();
    renameSync(keyFile, `${keyFile}.next`);
    renameSync(`${folder}/key.before`, keyFile);
    undo();
    const after = await open();
    expect([after.problem, values(after)]).toEqual([null, [canary]]);
    await after.rekey(); // ends what was begun
    expect(values(await open())).toEqual([canary]);
    expect(readdirSync(folder).sort()).toEqual(["key", "secrets.json"]);
  });

  it("that cannot be written changes nothing", async () => {
    const store = await open();
    const [sealed, key] = [readFileSync(path), readFileSync(keyFile)];
    writeFileSync(`${keyFile}.next`, "no key\n", { mode: 0o600 });
    await expect(store.rekey()).rejects.toMatchObject({ code: "secrets_unusable" });
    chmodSync(`${keyFile}.next`, 0o644);
    await expect(store.rekey()).rejects.toThrow(/say: chmod 600/);
    expect([readFileSync(path), readFileSync(keyFile)]).toEqual([sealed, key]);
  });

  it("is refused where the secrets are not encrypted", async () => {
    await expect((await open(null)).rekey()).rejects.toMatchObject({ code: "invalid_request" });
    expect(readFileSync(path, "utf8")).toContain(canary);
  });
});

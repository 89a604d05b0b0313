import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { execFileSync } from "node:child_process";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { Secret } from "../core/secrets/secret.js";
import { SecretStore, type SecretStoreOptions } from "./secret-store.js";

const canary = "canary-7b1f0c93aa52";
let folder: string;
let path: string;
let reports: string[];
/** what was put into force, the newest last */
let used: (readonly Secret[])[];
const stores: SecretStore[] = [];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "secret-store-"));
  path = join(folder, "secrets.json");
  reports = [];
  used = [];
});
afterEach(async () => {
  for (const store of stores.splice(0)) await store.close();
  rmSync(folder, { recursive: true });
  // no error and no report ever shows a value
  expect(reports.join()).not.toContain("canary");
});

async function open(options: Partial<SecretStoreOptions> = {}): Promise<SecretStore> {
  const report = (error: unknown): void => void reports.push(String(error));
  const store = await SecretStore.open({ path, keyFile: null, report, pollMs: 60_000, ...options });
  stores.push(store);
  await store.start((secrets) => Promise.resolve(void used.push(secrets)));
  return store;
}

function write(content: unknown, mode = 0o600): void {
  writeFileSync(path, typeof content === "string" ? content : JSON.stringify(content));
  chmodSync(path, mode);
}

/** As editors and deployment tools do it. */
function replace(content: unknown): void {
  writeFileSync(`${path}.new`, JSON.stringify(content), { mode: 0o600 });
  renameSync(`${path}.new`, path);
}

const file = (more: object = {}): object => ({
  secrets: { API_KEY: { placeholder: "placeholder-1", value: canary, allowed_hosts: ["api.example.com"], ...more } },
});
const names = (store: SecretStore): string[] => store.secrets.map(({ name }) => name);
const onDisk = (): { secrets: Record<string, Record<string, unknown>> } =>
  JSON.parse(readFileSync(path, "utf8")) as never;

describe("SecretStore.open()", () => {
  it("has no secrets where there is no file, and makes none", async () => {
    const store = await open();
    expect([store.secrets, store.problem, existsSync(path)]).toEqual([[], null, false]);
    expect(used).toEqual([[]]);
  });

  it("has those of the file, and leaves it as it is", async () => {
    write(file());
    const before = readFileSync(path, "utf8");
    const store = await open();
    expect(store.secrets).toMatchObject([{ name: "API_KEY", value: canary, placeholder: "placeholder-1" }]);
    expect([store.problem, reports, readFileSync(path, "utf8")]).toEqual([null, [], before]);
    expect(used).toEqual([store.secrets]);
  });

  it("writes down placeholders that it made, so that they are the same ever after", async () => {
    write({ secrets: { API_KEY: { value: canary, allowed_hosts: [] } } });
    const made = (await open()).secrets[0]?.placeholder;
    expect(onDisk().secrets["API_KEY"]).toEqual({ value: canary, placeholder: made, allowed_hosts: [] });
    expect((statSync(path).mode & 0o777).toString(8)).toBe("600");
    expect((await open()).secrets[0]?.placeholder).toBe(made);
  });

  it.each([
    ["", /is not JSON/],
    ["{", /is not JSON/],
    [`{"secrets": {\n"A": {"value": "${canary}" oops}}}`, /is not JSON( \(line 2\))?$/],
    [Buffer.from([0x7b, 0xff, 0x7d]).toString("latin1"), /is not JSON|is not UTF-8/],
    ["null", /must be \{"secrets"/],
    ["[]", /must be \{"secrets"/],
    [{}, /must be \{"secrets"/],
    [{ secrets: [] }, /must be \{"secrets"/],
    [{ secrets: {}, extra: canary }, /has something beside "secrets"/],
    [{ secrets: { "A B": {} } }, /its name must be/],
    [{ secrets: { A: canary } }, /Cannot use secret "A": it must be an object/],
    [file({ allowed_hosts: "all" }), /Cannot use secret "API_KEY": allowed_hosts must be a list/],
    [file({ allow_hosts: [] }), /Cannot use secret "API_KEY": allow_hosts is not one of a secret/],
    [file({ value: "a\nb-canary" }), /Cannot use secret "API_KEY": value has a line break/],
  ])("refuses %j, says why, and goes on without", async (content, said) => {
    write(content);
    const store = await open();
    expect(store.secrets).toEqual([]);
    expect(store.problem?.replace(/; it is in .*/, "")).toMatch(said);
    expect(store.problem).toContain(path);
    expect(reports).toEqual([`${store.problem ?? ""}; the secrets stay as they were (0)`]);
  });

  it.each([0o640, 0o604, 0o660, 0o644, 0o666])("refuses a file of mode %i, and says what to do", async (mode) => {
    write(file(), mode);
    const store = await open();
    expect([names(store), store.problem]).toEqual([[], expect.stringContaining(`say: chmod 600 ${path}`)]);
    chmodSync(path, 0o600);
    await store.reload();
    expect([names(store), store.problem]).toEqual([["API_KEY"], null]);
  });

  it.runIf(process.getuid?.() === 0)("refuses another user's file", async () => {
    write(file());
    chownSync(path, 12_345, 0);
    expect((await open()).problem).toContain(`it belongs to user 12345; say: chown root ${path}`);
  });

  it("follows no symbolic link, and waits for no pipe", async () => {
    writeFileSync(join(folder, "elsewhere"), JSON.stringify(file()), { mode: 0o600 });
    symlinkSync(join(folder, "elsewhere"), path);
    const store = await open();
    expect([names(store), store.problem]).toEqual([[], expect.stringContaining("it is a symbolic link")]);
    await expect(store.put("A", { value: canary, allowed_hosts: [] })).rejects.toMatchObject({
      code: "secrets_unusable",
    });
    expect(statSync(join(folder, "elsewhere")).size).toBe(JSON.stringify(file()).length);
    rmSync(path);
    execFileSync("mkfifo", ["-m", "600", path]);
    expect((await open()).problem).toContain("it is no ordinary file");
  });

  it("removes what a squashd left that was killed while it wrote, and has the old secrets", async () => {
    write(file());
    writeFileSync(`${path}.tmp-0a1b2c`, `{"secrets": {"B": {"value": "${canary}`, { mode: 0o600 });
    expect(names(await open())).toEqual(["API_KEY"]);
    expect(readdirSync(folder)).toEqual(["secrets.json"]);
  });
});

describe("a file that changes", () => {
  it.each([
    ["in its place", (content: unknown) => write(content)],
    ["by renaming", replace],
  ])("%s is taken over without a restart", async (_, change) => {
    write(file());
    const store = await open();
    change(file({ allowed_hosts: ["other.example"] }));
    await expect.poll(() => used.at(-1)?.[0]?.allowedHosts).toEqual(["other.example"]);
    rmSync(path);
    await expect.poll(() => used.at(-1)).toEqual([]);
    expect([store.problem, reports]).toEqual([null, []]);
    change(file());
    await expect.poll(() => used.at(-1)?.[0]?.name).toBe("API_KEY");
  });

  it("is seen in time where the kernel tells nothing", async () => {
    write(file());
    const store = await open({ pollMs: 20, path: join(folder, ".", "secrets.json") });
    replace({ secrets: {} });
    await expect.poll(() => names(store)).toEqual([]);
  });

  it("and is broken leaves the old secrets in force, is reported once, and is in force when it is mended", async () => {
    write(file());
    const store = await open();
    const before = store.secrets;
    write("{");
    await expect.poll(() => store.problem).toContain("is not JSON");
    await store.reload();
    await store.reload();
    expect(store.secrets).toBe(before);
    expect(reports).toEqual([expect.stringContaining("the secrets stay as they were (1)")]);
    await expect(store.put("B", { value: canary, allowed_hosts: [] })).rejects.toThrow(/until that is put right/);
    await expect(store.remove("API_KEY")).rejects.toMatchObject({ code: "secrets_unusable" });
    expect(readFileSync(path, "utf8")).toBe("{");
    write(file({ value: `${canary}-2` }));
    await expect.poll(() => used.at(-1)?.[0]?.value).toBe(`${canary}-2`);
    expect(store.problem).toBeNull();
  });
});

describe("put() and remove()", () => {
  it("write what is there besides, 0600, and put it into force before they return", async () => {
    write(file());
    const store = await open();
    const made = await store.put("B", { value: "sk-0123456789abcdef", allowed_hosts: ["b.example"] });
    expect(used.at(-1)).toBe(store.secrets);
    expect(made.placeholder).toMatch(/^sk-[0-9a-f]{16}$/);
    expect(Object.keys(onDisk().secrets)).toEqual(["API_KEY", "B"]);
    expect((statSync(path).mode & 0o777).toString(8)).toBe("600");
    await store.remove("API_KEY");
    expect(Object.keys(onDisk().secrets)).toEqual(["B"]);
    expect(used.at(-1)).toEqual([made]);
    await expect(store.remove("API_KEY")).rejects.toMatchObject({ code: "secret_not_found" });
  });

  it("keep value and placeholder that are not said, but no placeholder that would tell of a new value", async () => {
    const store = await open();
    const first = await store.put("A", { value: "0123456789abcdef", allowed_hosts: ["a.example"] });
    const moved = await store.put("A", { allowed_hosts: ["b.example"] });
    expect(moved).toEqual({ ...first, allowedHosts: ["b.example"] });
    const renewed = await store.put("A", { value: "fedcba9876543210", allowed_hosts: ["b.example"] });
    expect(renewed.placeholder).toBe(first.placeholder);
    const other = await store.put("A", { value: `xx${first.placeholder}xx`, allowed_hosts: [] });
    expect(other.placeholder).not.toBe(first.placeholder);
    await expect(store.put("B", { allowed_hosts: [] })).rejects.toThrow(/"B": value is required/);
  });

  it("work on what somebody has put into the file meanwhile", async () => {
    write(file());
    const store = await open();
    replace({ secrets: { ...(file() as { secrets: object }).secrets, THEIRS: { value: canary, allowed_hosts: [] } } });
    await store.put("OURS", { value: "ours-0123456789", allowed_hosts: [] });
    expect(Object.keys(onDisk().secrets)).toEqual(["API_KEY", "OURS", "THEIRS"]);
  });

  it("change nothing where the request is refused, or the disk takes nothing", async () => {
    write(file());
    const store = await open();
    const before = readFileSync(path, "utf8");
    await expect(store.put("B", { value: canary, allowed_hosts: ["*"] })).rejects.toMatchObject({
      code: "invalid_request",
      details: { secret: "B", field: "allowed_hosts" },
    });
    rmSync(folder, { recursive: true });
    await expect(store.put("B", { value: canary, allowed_hosts: [] })).rejects.toMatchObject({
      code: "secrets_unusable",
    });
    mkdirSync(folder);
    writeFileSync(path, before, { mode: 0o600 });
    await store.reload();
    expect(names(store)).toEqual(["API_KEY"]);
  });

  it("have company: a refresh token that a server replaced is kept, unless the grant is another one by now", async () => {
    const oauth2 = { token_url: "https://id.example.com/token", client_id: "me", refresh_token: "refresh-1" };
    write(file({ value: undefined, oauth2 }));
    const store = await open();
    const token = (): unknown => onDisk().secrets["API_KEY"]?.["oauth2"];
    await store.replaceRefreshToken("API_KEY", "refresh-1", "refresh-2");
    expect([token(), used.at(-1)?.[0]?.oauth2?.refreshToken]).toEqual([
      { ...oauth2, refresh_token: "refresh-2" },
      "refresh-2",
    ]);
    await store.replaceRefreshToken("API_KEY", "refresh-1", "refresh-3");
    await store.replaceRefreshToken("OTHER", "refresh-2", "refresh-3");
    expect(token()).toEqual({ ...oauth2, refresh_token: "refresh-2" });
  });

  it("do not take the key away that another secret signs with", async () => {
    const store = await open();
    await store.put("KEY", { value: "secret-access-key", allowed_hosts: [] });
    await store.put("ID", {
      value: "AKIAQ7KZ2M4X5N3PJYDT",
      allowed_hosts: ["*.aws.example"],
      sigv4: { secret_access_key: "KEY" },
    });
    await expect(store.remove("KEY")).rejects.toMatchObject({ code: "secret_in_use" });
    await store.remove("ID");
    await store.remove("KEY");
  });
});

describe("with a key", () => {
  const keyFile = (): string => join(folder, "key");
  const newKey = (content: string | Buffer = Buffer.alloc(32, 7)): void =>
    writeFileSync(keyFile(), content, { mode: 0o600 });

  it("encrypts a file in plain text when it is first read, with another nonce each time", async () => {
    newKey();
    write(file());
    const store = await open({ keyFile: keyFile() });
    const first = readFileSync(path, "utf8");
    expect(first).not.toMatch(/canary|placeholder|API_KEY|example/);
    expect(names(await open({ keyFile: keyFile() }))).toEqual(["API_KEY"]);
    await store.put("B", { value: canary, allowed_hosts: [] });
    const second = readFileSync(path, "utf8");
    expect(second).not.toContain("canary");
    const nonces = [first, second].map((text) => (JSON.parse(text) as { nonce: string }).nonce);
    expect(nonces[0]).not.toBe(nonces[1]);
    expect(names(await open({ keyFile: keyFile() }))).toEqual(["API_KEY", "B"]);
    expect(readdirSync(folder).sort()).toEqual(["key", "secrets.json"]);
  });

  it.each([
    ["another key", (): void => newKey(Buffer.alloc(32, 8)), /encrypted with another key/],
    [
      "no key any more",
      (): void => rmSync(keyFile()),
      /there is no such file; if there never was one, make it by: head -c 32/,
    ],
    ["no key but text", (): void => newKey("password\n"), /it is no key of 32 bytes/],
    ["a key that others may read", (): void => chmodSync(keyFile(), 0o644), /say: chmod 600/],
    ["one byte of it changed", (): void => damage(), /is damaged: what it holds is not what was encrypted/],
  ])("and %s says so, and loses nothing", async (_, change, said) => {
    newKey();
    write(file());
    await open({ keyFile: keyFile() });
    const sealed = readFileSync(path, "utf8");
    change();
    const store = await open({ keyFile: keyFile() });
    expect([store.secrets, store.problem]).toEqual([[], expect.stringMatching(said)]);
    await expect(store.put("B", { value: canary, allowed_hosts: [] })).rejects.toMatchObject({
      code: "secrets_unusable",
    });
    writeFileSync(path, sealed, { mode: 0o600 });
    newKey();
    chmodSync(keyFile(), 0o600);
    expect(names(await open({ keyFile: keyFile() }))).toEqual(["API_KEY"]);
  });

  it("takes keys in hexadecimal digits and in base64, and tells of an encrypted file without one", async () => {
    newKey(Buffer.alloc(32, 7));
    write(file());
    await open({ keyFile: keyFile() });
    for (const text of [Buffer.alloc(32, 7).toString("hex"), `${Buffer.alloc(32, 7).toString("base64")}\n`]) {
      newKey(text);
      expect(names(await open({ keyFile: keyFile() }))).toEqual(["API_KEY"]);
    }
    expect((await open()).problem).toContain("it is encrypted; set SQUASH_SECRETS_KEY_FILE");
  });

  function damage(): void {
    const sealed = JSON.parse(readFileSync(path, "utf8")) as { data: string };
    const data = Buffer.from(sealed.data, "base64");
    data[5] = (data[5] ?? 0) ^ 1;
    writeFileSync(path, JSON.stringify({ ...sealed, data: data.toString("base64") }));
  }
});

import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { X509Certificate, createHash } from "node:crypto";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { rootCertificates } from "node:tls";
import { afterAll, describe, expect, it } from "vitest";
import { javaKeyStore, withTrusted } from "./java-key-store.js";

const certificates = rootCertificates.slice(0, 5).map((pem) => new X509Certificate(pem));
const [first, ...rest] = certificates.map(({ raw }) => raw);
const hasKeytool = spawnSync("keytool", ["-help"]).status === 0;
const directory = mkdtempSync(join(tmpdir(), "sq-java-"));

afterAll(() => rmSync(directory, { recursive: true }));

/** Certificates by alias, as another reader of the format finds them. */
function read(store: Buffer): Map<string, Buffer> {
  const content = store.subarray(0, -20);
  const digest = createHash("sha1");
  for (const character of "changeit") digest.update(Buffer.from([0, character.charCodeAt(0)]));
  expect(store.subarray(-20)).toEqual(digest.update("Mighty Aphrodite").update(content).digest());
  expect(content.subarray(0, 8).toString("hex")).toBe("feedfeed00000002");
  const found = new Map<string, Buffer>();
  let at = 12;
  const take = (size: number): Buffer => content.subarray(at, (at += size));
  const text = (): string => take(take(2).readUInt16BE()).toString();
  for (let left = content.readUInt32BE(8); left > 0; left--) {
    expect(take(4).readUInt32BE()).toBe(2);
    const alias = text();
    take(8);
    expect(text()).toBe("X.509");
    found.set(alias, take(take(4).readUInt32BE()));
  }
  expect(at).toBe(content.length);
  return found;
}

function keytool(...args: string[]): string {
  return execFileSync("keytool", [...args, "-storepass", "changeit"], {
    encoding: "utf8",
    env: { PATH: "/usr/bin:/bin", LC_ALL: "C" },
  });
}

describe("javaKeyStore()", () => {
  it("has all certificates, sealed by the password that everybody has", () => {
    expect([...read(javaKeyStore(rest)).values()]).toEqual(rest);
    expect(read(javaKeyStore([])).size).toBe(0);
  });

  it.skipIf(!hasKeytool)("is read by keytool", () => {
    const path = join(directory, "made");
    writeFileSync(path, javaKeyStore(certificates.map(({ raw }) => raw)));
    const listed = keytool("-list", "-keystore", path);
    expect(listed).toContain("Keystore type: JKS");
    expect(listed).toContain("Your keystore contains 5 entries");
    for (const { fingerprint256 } of certificates) expect(listed).toContain(fingerprint256);
  });
});

describe("withTrusted()", () => {
  it("adds a certificate to a store and leaves the others as they are", () => {
    const store = withTrusted(javaKeyStore(rest), "one-more", first!);
    expect([...read(store!).values()]).toEqual([...rest, first]);
    expect(read(store!).get("one-more")).toEqual(first);
  });

  it.skipIf(!hasKeytool)("adds one to what keytool has made", () => {
    const pem = join(directory, "first.pem");
    const path = join(directory, "of-keytool");
    writeFileSync(pem, certificates[0]!.toString());
    keytool("-importcert", "-noprompt", "-storetype", "JKS", "-alias", "theirs", "-file", pem, "-keystore", path);
    const store = withTrusted(readFileSync(path), "ours", rest[0]!);
    expect([...read(store!).keys()]).toEqual(["theirs", "ours"]);
    writeFileSync(path, store!);
    const listed = keytool("-list", "-keystore", path);
    expect(listed).toContain("theirs, ");
    expect(listed).toContain("ours, ");
    expect(listed).toContain(certificates[1]!.fingerprint256);
  });

  it("takes nothing that is not whole, or is no such store", () => {
    const store = javaKeyStore(rest);
    for (let size = 0; size < store.length; size += 97)
      expect(withTrusted(store.subarray(0, size), "x", first!)).toBeNull();
    expect(withTrusted(Buffer.from("30820a", "hex"), "x", first!)).toBeNull();
    const manyEntries = Buffer.from(store);
    manyEntries.writeUInt32BE(0xffff_ffff, 8);
    expect(withTrusted(manyEntries, "x", first!)).toBeNull();
    const privateKey = Buffer.from(store);
    privateKey.writeUInt32BE(1, 12);
    expect(withTrusted(privateKey, "x", first!)).toBeNull();
    const longEntry = Buffer.from(store);
    longEntry.writeUInt16BE(0xffff, 16);
    expect(withTrusted(longEntry, "x", first!)).toBeNull();
  });
});

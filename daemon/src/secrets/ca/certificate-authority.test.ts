import { X509Certificate } from "node:crypto";
import { chmod, mkdir, mkdtemp, readFile, readdir, rename, rm, stat, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { makePair, readPair } from "./authority-pair.js";
import { CertificateAuthority } from "./certificate-authority.js";

let scratch: string;
let directory: string;
beforeEach(async () => {
  scratch = await mkdtemp(join(tmpdir(), "squash-ca-"));
  directory = join(scratch, "proxy-ca");
});
afterEach(() => rm(scratch, { recursive: true }));

const file = (name: string): string => join(directory, name);
const content = (name: string): Promise<string> => readFile(file(name), "utf8");
const fails = (pattern: RegExp): Promise<void> => expect(CertificateAuthority.open(directory)).rejects.toThrow(pattern);

describe("the proxy's authority", () => {
  it("is made once, and the same ever after", async () => {
    const made = await CertificateAuthority.open(directory);
    const again = await CertificateAuthority.open(directory);
    expect(again.current).toEqual(made.current);
    expect(await content("ca.crt")).toBe(made.current.certificatePem);
    expect((await stat(file("ca.key"))).mode & 0o777).toBe(0o600);
    expect(made.current).not.toHaveProperty("keyPem");
  });

  it("may issue leaves for names only, for ten years", async () => {
    const { current } = await CertificateAuthority.open(directory);
    const certificate = new X509Certificate(current.certificatePem);
    expect(certificate.ca).toBe(true);
    const years = (Date.parse(certificate.validTo) - Date.now()) / (365.25 * 24 * 3_600_000);
    expect(years).toBeCloseTo(10, 1);
    const der = certificate.raw.toString("hex");
    expect(der).toContain("0603551d130101ff040830060101ff020100"); // basicConstraints, critical: CA, pathlen 0
    expect(der).toContain("0603551d0f0101ff040403020204"); // keyUsage, critical: keyCertSign
    expect(der).toContain("0603551d1e0101ff"); // nameConstraints, critical
  });

  it.each([
    [
      "is cut off",
      () => writeFile(file("ca.crt"), "-----BEGIN CERTIFICATE-----\nAAA"),
      /the certificate cannot be read/,
    ],
    ["has no key", () => rm(file("ca.key")), /ENOENT.*ca\.key/],
    ["has no certificate", () => rm(file("ca.crt")), /ENOENT.*ca\.crt/],
    ["has the key of another one", () => writeFile(file("ca.key"), makePair().keyPem), /do not belong together/],
    ["has a key that others may read", () => chmod(file("ca.key"), 0o640), /mode 640, which lets others read it/],
    ["lies where others may write", () => chmod(directory, 0o777), /mode 777, which lets others write it/],
    [
      "has a link in place of its key",
      async () => {
        await rename(file("ca.key"), join(scratch, "key"));
        await symlink(join(scratch, "key"), file("ca.key"));
      },
      /ELOOP/,
    ],
  ])("that %s is an error that says what to do, and stays as it is", async (_, damage, message) => {
    await CertificateAuthority.open(directory);
    await damage();
    const before = await readdir(directory);
    await fails(message);
    await fails(/put a copy of it back, or remove the directory/);
    expect(await readdir(directory)).toEqual(before);
  });
});

describe("a pair", () => {
  it("is not taken before its time nor after it", () => {
    const { certificatePem, keyPem, notAfter } = makePair();
    expect(() => readPair(certificatePem, keyPem, new Date(notAfter.getTime() + 1))).toThrow("has expired at");
    expect(() => readPair(certificatePem, keyPem, new Date(Date.now() - 120_000))).toThrow("not yet valid");
    expect(readPair(certificatePem, keyPem).notAfter).toEqual(notAfter);
  });
});

describe("a rotation", () => {
  it("makes another one, keeps the one before for who trusts it, and lets go of those that nobody does", async () => {
    const authority = await CertificateAuthority.open(directory);
    const first = authority.current.fingerprint;
    await authority.rotate([]);
    const second = authority.current.fingerprint;
    expect(authority.all().map(({ fingerprint }) => fingerprint)).toEqual([second, first]);
    await authority.rotate([first]);
    const third = authority.current.fingerprint;
    const reopened = await CertificateAuthority.open(directory);
    expect(
      reopened
        .all()
        .map(({ fingerprint }) => fingerprint)
        .toSorted(),
    ).toEqual([first, second, third].toSorted());
    expect(reopened.current.fingerprint).toBe(third);
    expect(reopened.all().every(({ keyPem }) => keyPem.includes("PRIVATE KEY"))).toBe(true);
    await reopened.forget([first, third]);
    expect((await CertificateAuthority.open(directory)).all().length).toBe(2);
  });

  it.each([
    ["before anything was moved", ["ca.crt", "ca.key"]],
    ["when the key was moved", ["ca.crt"]],
    ["when all was moved", []],
  ])("that was cut off %s is finished by the next start", async (_, left) => {
    const authority = await CertificateAuthority.open(directory);
    const old = authority.current.fingerprint;
    await authority.rotate([old]);
    const { fingerprint } = authority.current;
    await mkdir(file("next"), { mode: 0o700 });
    const before = join(file("previous"), old);
    for (const name of ["ca.crt", "ca.key"]) {
      if (!left.includes(name)) continue;
      await rename(file(name), join(file("next"), name));
      await writeFile(file(name), await readFile(join(before, name)), { mode: 0o600 });
    }
    expect((await CertificateAuthority.open(directory)).current.fingerprint).toBe(fingerprint);
    expect(await readdir(directory)).not.toContain("next");
  });

  it("that did not come to its end while making files leaves the one before", async () => {
    const { current } = await CertificateAuthority.open(directory);
    await mkdir(file("next.new"));
    await writeFile(join(file("next.new"), "ca.crt"), "half");
    expect((await CertificateAuthority.open(directory)).current).toEqual(current);
  });
});

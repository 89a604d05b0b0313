import { execFileSync, spawnSync } from "node:child_process";
import { createHash, X509Certificate } from "node:crypto";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  rmSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { rootCertificates } from "node:tls";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { isSquashError } from "@squash/sdk/errors";
import type { TrustImage, TrustWish } from "../../src/core/secrets/trust.js";
import { javaKeyStore, withTrusted } from "../../src/secrets/trust/java-key-store.js";
import { TrustImageFolder } from "../../src/secrets/trust/trust-images.js";
import { lacks } from "../../../test/support/needs.js";
import { patience } from "../../../test/support/patience.js";
import { TestSandbox } from "./test-sandbox.js";
import { usableFormat, useKernel } from "./test-kernel.js";

const pem = (index: number): string => `${rootCertificates[index] ?? ""}\n`;
const own = pem(0);
const authority = { fingerprint: new X509Certificate(own).fingerprint256, certificatePem: own };

/** owner rwx, user 1000 r-x, group, mask and others r-x; Source: linux/posix_acl_xattr.h */
const accessList = "0x0200000001000700ffffffff02000500e803000004000500ffffffff10000500ffffffff20000500ffffffff";

/** Whether the file system takes attributes of users: a tmpfs does from Linux 6.6 on. */
function takesNote(path: string): boolean {
  return spawnSync("setfattr", ["-n", "user.note", "-v", "kept", path]).status === 0;
}

describe.skipIf(lacks("root"))("images of trust", () => {
  const machine = useKernel();
  const mounted: string[] = [];
  let images: TrustImageFolder;
  let count = 0;

  beforeEach(() => {
    images = new TrustImageFolder({ kernel: machine.kernel, dataDir: machine.dataDir });
  });
  afterEach(async () => {
    for (const key of mounted.splice(0)) await machine.kernel.unmountLayer(key);
    await images.sweep();
    const folder = join(machine.dataDir, "trust");
    expect(existsSync(folder) ? readdirSync(folder) : []).toEqual([]);
  });

  /** Mounts modules, topmost first; returns their keys. */
  async function modules(...fills: readonly ((root: string) => void)[]): Promise<string[]> {
    const keys: string[] = [];
    for (const fill of fills) {
      const name = `module${++count}`;
      const key = `${name}-${machine.mark}`;
      await machine.kernel.mountLayer(key, machine.pack(name, "erofs", fill), "erofs");
      mounted.push(key);
      keys.push(key);
    }
    return keys;
  }

  async function base(): Promise<string> {
    const key = `base${++count}-${machine.mark}`;
    await machine.kernel.mountLayer(key, machine.image("000-base-test", usableFormat), usableFormat);
    mounted.push(key);
    return key;
  }

  const wish = (keys: readonly string[], more: Partial<TrustWish> = {}): TrustWish => ({
    authority,
    modules: keys,
    javaHome: null,
    profile: (bundle) => `export SSL_CERT_FILE='${bundle}'\n`,
    ...more,
  });

  /** Makes an image and mounts it; returns its key. */
  function lay(keys: readonly string[], more: Partial<TrustWish> = {}): Promise<{ key: string; image: TrustImage }> {
    return images.use(wish(keys, more), async (image) => {
      const key = `${image.layer.name}@0.erofs`;
      await machine.kernel.mountLayer(key, image.layer.image, "erofs");
      mounted.push(key);
      return { key, image };
    });
  }

  const refusal = (work: Promise<unknown>): Promise<string> =>
    work.then(
      () => "none",
      (error: unknown) => (isSquashError(error) ? `${error.code}: ${error.message}` : Promise.reject(error as Error)),
    );

  it("have what sandboxes need above modules without certificates, and directories as they were", async () => {
    let hasNote = false;
    const keys = await modules((root) => {
      mkdirSync(join(root, "etc/profile.d"), { recursive: true });
      mkdirSync(join(root, "usr/local"), { recursive: true });
      chmodSync(join(root, "etc"), 0o751);
      hasNote = takesNote(join(root, "etc"));
      execFileSync("setfattr", ["-n", "system.posix_acl_default", "-v", accessList, join(root, "etc/profile.d")]);
      chmodSync(join(root, "usr"), 0o2755);
      utimesSync(join(root, "usr"), 1_000_000_000, 1_000_000_000);
      chmodSync(root, 0o711);
      utimesSync(root, 1_100_000_000, 1_100_000_000);
    });
    keys.push(await base());
    const survey = "for path in / /etc /etc/profile.d /usr /usr/local; do stat -c '%n %a %u:%g %Y' $path; done";
    await using plain = await TestSandbox.make(machine, 1, { layers: keys });
    const before = await plain.print(survey);
    expect(before).toContain("/ 711 0:0 1100000000\n");
    expect(before).toContain("/usr 2755 0:0 1000000000\n");
    const { key, image } = await lay(keys);
    expect(image.root).toEqual({ ca: authority.fingerprint, bundle: "/etc/ssl/certs/ca-certificates.crt" });
    await using sandbox = await TestSandbox.make(machine, 2, { layers: [key, ...keys] });
    expect((await sandbox.print(survey)).replace(/^(\/etc 751 0:0) \d+$/m, "$1")).toBe(
      before.replace(/^(\/etc 751 0:0) \d+$/m, "$1"),
    );
    expect(await sandbox.print("cat /usr/local/share/ca-certificates/sq-proxy-ca.crt")).toBe(own);
    expect(await sandbox.print("cat /etc/profile.d/squash-secrets.sh")).toBe(
      "export SSL_CERT_FILE='/etc/ssl/certs/ca-certificates.crt'\n",
    );
    const bundle = (await sandbox.print("md5sum </etc/ssl/certs/ca-certificates.crt")).slice(0, 32);
    const wanted = `${rootCertificates.join("\n")}\n${own}`;
    expect(bundle).toBe(createHash("md5").update(wanted).digest("hex"));
    expect(await sandbox.print("stat -c '%a %u:%g' /etc/ssl/certs/ca-certificates.crt /usr/local/share")).toBe(
      "644 0:0\n755 0:0\n",
    );
    // attributes of the directory are those of the module in its own layer
    const layer = `/proc/${await machine.hostPid()}/root/l/${key}`;
    const attributes = execFileSync("getfattr", ["-d", "-m", "^user", `${layer}/etc`], { encoding: "utf8" });
    expect(attributes.includes('user.note="kept"')).toBe(hasNote);
    const list = ["-e", "hex", "-n", "system.posix_acl_default", `${layer}/etc/profile.d`];
    expect(execFileSync("getfattr", list, { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] })).toContain(
      accessList,
    );
  });

  const write = (root: string, path: string, content: string | Buffer, mode = 0o644): void => {
    mkdirSync(join(root, dirname(path)), { recursive: true });
    writeFileSync(join(root, path), content);
    chmodSync(join(root, path), mode);
  };
  const link = (root: string, path: string, target: string): void => {
    mkdirSync(join(root, dirname(path)), { recursive: true });
    symlinkSync(target, join(root, path));
  };
  const module = pem(1);

  it.each([
    [
      "Debian",
      ["/etc/ssl/certs/ca-certificates.crt"],
      (root: string): void => write(root, "etc/ssl/certs/ca-certificates.crt", module, 0o640),
    ],
    [
      "Alpine",
      ["/etc/ssl/certs/ca-certificates.crt", "/etc/ssl/cert.pem"],
      (root: string): void => {
        write(root, "etc/ssl/certs/ca-certificates.crt", module, 0o640);
        link(root, "etc/ssl/cert.pem", "certs/ca-certificates.crt");
      },
    ],
    [
      "Fedora",
      [
        "/etc/pki/tls/certs/ca-bundle.crt",
        "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
        "/etc/ssl/certs/ca-bundle.crt",
        "/etc/pki/tls/cert.pem",
      ],
      (root: string): void => {
        write(root, "etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", module, 0o640);
        link(root, "etc/pki/tls/certs/ca-bundle.crt", "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem");
        link(root, "etc/pki/tls/cert.pem", "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem");
        link(root, "etc/ssl/certs", "../pki/tls/certs");
      },
    ],
    [
      "SUSE",
      ["/etc/ssl/ca-bundle.pem", "/var/lib/ca-certificates/ca-bundle.pem"],
      (root: string): void => {
        write(root, "var/lib/ca-certificates/ca-bundle.pem", module, 0o640);
        link(root, "etc/ssl/ca-bundle.pem", "../../var/lib/ca-certificates/ca-bundle.pem");
      },
    ],
  ])("extend the file that %s has, and leave links to it links", async (_, paths, fill) => {
    const keys = [...(await modules(fill)), await base()];
    const { key, image } = await lay(keys);
    expect(paths).toContain(image.root.bundle);
    await using sandbox = await TestSandbox.make(machine, 1, { layers: [key, ...keys] });
    for (const path of paths) {
      expect(await sandbox.print(`cat ${path}`)).toBe(`${module}${own}`);
      expect(await sandbox.print(`stat -Lc '%a %u:%g' ${path}`)).toBe("640 0:0\n");
    }
    const kinds = `for path in ${paths.join(" ")}; do stat -c '%n %F' $path; done`;
    await using plain = await TestSandbox.make(machine, 2, { layers: keys });
    expect((await sandbox.print(kinds)).replaceAll("regular empty", "regular")).toBe(await plain.print(kinds));
    expect(readdirSync(join(machine.dataDir, "trust"))).toEqual([expect.stringMatching(/^[0-9a-f]{32}\.erofs$/)]);
  });

  it("extend the topmost module's file, and none that a module above has removed", async () => {
    const name = "etc/ssl/certs/ca-certificates.crt";
    const keys = await modules(
      (root) => write(root, name, pem(3)),
      (root) => write(root, name, pem(2)),
    );
    keys.push(await base());
    const first = await lay(keys);
    await using one = await TestSandbox.make(machine, 1, { layers: [first.key, ...keys] });
    expect(await one.print(`cat /${name}`)).toBe(`${pem(3)}${own}`);
    const hidden = [
      ...(await modules((root) => {
        mkdirSync(join(root, "etc/ssl/certs"), { recursive: true });
        execFileSync("mknod", [join(root, name), "c", "0", "0"]);
      })),
      ...keys,
    ];
    const second = await lay(hidden);
    await using two = await TestSandbox.make(machine, 2, { layers: [second.key, ...hidden] });
    const ends = `${rootCertificates.at(-1) ?? ""}\n${own}`;
    expect(await two.print(`tail -c ${ends.length} /${name}`)).toBe(ends);
  });

  it("extend the store of a Java machine, whose links stay links", async () => {
    const store = javaKeyStore([new X509Certificate(pem(4)).raw]);
    const keys = await modules((root) => {
      write(root, "etc/ssl/certs/ca-certificates.crt", module);
      write(root, "opt/jdk/lib/security/cacerts", "0pkcs12");
      write(root, "etc/ssl/certs/java/cacerts", store);
      link(root, "usr/lib/jvm/java-21-openjdk-amd64/lib/security/cacerts", "/etc/ssl/certs/java/cacerts");
      link(root, "usr/lib/jvm/default-java", "java-17-openjdk-amd64");
      link(root, "usr/lib/jvm/java-17-openjdk-amd64/lib/security/cacerts", "/etc/java-17/cacerts");
    });
    keys.push(await base());
    const { key } = await lay(keys, { javaHome: "/opt/jdk" });
    await using sandbox = await TestSandbox.make(machine, 1, { layers: [key, ...keys] });
    const get = async (path: string): Promise<string> => (await sandbox.print(`base64 -w0 ${path}`)).trim();
    const der = (index: number): Buffer => new X509Certificate(pem(index)).raw;
    const extended = withTrusted(store, "squash-proxy", der(0))?.toString("base64");
    expect(await get("/etc/ssl/certs/java/cacerts")).toBe(extended);
    expect(await get("/usr/lib/jvm/java-21-openjdk-amd64/lib/security/cacerts")).toBe(extended);
    // of another form, and of none yet: made of the bundle
    const made = javaKeyStore([der(1), der(0)]).toString("base64");
    expect(await get("/opt/jdk/lib/security/cacerts")).toBe(made);
    const linked = withTrusted(javaKeyStore([]), "squash-proxy", der(0))?.toString("base64");
    expect([made, linked]).toContain(await get("/etc/java-17/cacerts"));
    expect(await sandbox.print("readlink /usr/lib/jvm/default-java")).toBe("java-17-openjdk-amd64\n");
  });

  it("lie where links of modules lead inside, never outside", async () => {
    const outside = join(machine.home, "outside");
    mkdirSync(outside);
    const before = readdirSync(outside);
    const keys = await modules((root) => {
      link(root, "etc/ssl/certs", `../../../../../../../..${outside}`);
      link(root, "etc/ssl/cert.pem", `../../../..${join(outside, "planted")}`);
      link(root, "etc/profile.d", outside);
      link(root, "usr/local/share", "/proc/1/root/tmp");
      link(root, "etc/pki/tls/certs/ca-bundle.crt", "/proc/self/root/etc/shadow");
    });
    keys.push(await base());
    const { key } = await lay(keys);
    await using sandbox = await TestSandbox.make(machine, 1, { layers: [key, ...keys] });
    expect(await sandbox.print(`cat ${outside}/squash-secrets.sh`)).toContain("SSL_CERT_FILE");
    expect(await sandbox.print(`tail -c ${own.length} ${outside}/ca-certificates.crt`)).toBe(own);
    expect(readdirSync(outside)).toEqual(before);
    expect(existsSync("/tmp/ca-certificates")).toBe(false);
  });

  it("are refused in time, with a word that says where, for what no list of certificates can be", async () => {
    const name = "etc/ssl/certs/ca-certificates.crt";
    const strange: [string, (root: string) => void, RegExp][] = [
      [
        "huge",
        (root) => (write(root, name, ""), truncateSync(join(root, name), 8 * 2 ** 20)),
        /ca-certificates.crt" of its modules has 8388608 bytes, more than 4194304/,
      ],
      [
        "a pipe",
        (root) => (
          mkdirSync(join(root, "etc/ssl/certs"), { recursive: true }),
          execFileSync("mkfifo", [join(root, name)])
        ),
        /has no file but a fifo/,
      ],
      ["a directory", (root) => void mkdirSync(join(root, name), { recursive: true }), /has no file but a directory/],
      ["a program", (root) => write(root, name, "#!/bin/sh\n"), /has no list of certificates/],
      ["a link to itself", (root) => link(root, name, "ca-certificates.crt"), /has symbolic links without end/],
      [
        "links that double",
        (root) => {
          for (let at = 0; at < 30; at++) link(root, `etc/l${at}`, `l${at + 1}/../l${at + 1}`);
          link(root, name, "/etc/l0");
        },
        /has symbolic links without end/,
      ],
      [
        "a file in the way",
        (root) => write(root, "usr/local", ""),
        /usr\/local\/share\/ca-certificates" of its modules has no directory/,
      ],
    ];
    for (const [what, fill, wanted] of strange) {
      const keys = [...(await modules(fill)), await base()];
      const start = performance.now();
      expect(await refusal(lay(keys)), what).toMatch(wanted);
      expect(performance.now() - start).toBeLessThan(5_000 * patience);
    }
    expect(readdirSync(join(machine.dataDir, "trust"))).toEqual([]);
  });

  it("are made once where many want one at a time, and again when a wish differs", async () => {
    const keys = [await base()];
    let compared = 0;
    const compare: typeof machine.kernel.compare = (...args) => {
      compared++;
      return machine.kernel.compare(...args);
    };
    const mountedLayers = (): Promise<string[]> => machine.kernel.mountedLayers();
    const counted = new TrustImageFolder({ kernel: { compare, mountedLayers }, dataDir: machine.dataDir });
    const get = (more: Partial<TrustWish> = {}): Promise<string> =>
      counted.use(wish(keys, more), ({ layer }) => Promise.resolve(layer.name));
    const names = await Promise.all(Array.from({ length: 20 }, () => get()));
    const once = compared;
    expect([new Set(names).size, await get(), compared]).toEqual([1, names[0], once]);
    const other = await get({ profile: () => "another" });
    const third = await get({ authority: { ...authority, fingerprint: "another" } });
    expect([new Set([names[0], other, third]).size, compared]).toEqual([3, 3 * once]);
    // the same wish gives the same bytes
    const path = join(machine.dataDir, "trust", `${(names[0] ?? "").slice("trust-".length)}.erofs`);
    const bytes = readFileSync(path);
    rmSync(path);
    expect([await get(), readFileSync(path).equals(bytes)]).toEqual([names[0], true]);
  });

  it("stay while they are mounted or asked for, and go when nobody uses them", async () => {
    const keys = [await base()];
    const { key, image } = await lay(keys);
    const file = image.layer.image;
    expect(await images.collect({ dryRun: true })).toEqual({ files: [], bytes: 0 });
    writeFileSync(join(machine.dataDir, "trust/.look-0123"), "left by a crash");
    await images.use(wish(keys), async () => {
      expect(await images.collect({ dryRun: false })).toEqual({ files: [], bytes: 0 });
    });
    expect((await images.collect({ dryRun: false })).files).toEqual(["trust/.look-0123"]);
    await machine.kernel.unmountLayer(key);
    mounted.splice(mounted.indexOf(key), 1);
    const plan = await images.collect({ dryRun: true });
    expect([plan.files, plan.bytes > 100_000]).toEqual([[file], true]);
    expect(await images.collect({ dryRun: false })).toEqual(plan);
    expect(existsSync(join(machine.dataDir, file))).toBe(false);
  });

  it("fail, and leave nothing, when the modules cannot be read in time", async () => {
    const keys = [await base()];
    const slow = new TrustImageFolder({ kernel: machine.kernel, dataDir: machine.dataDir, makingMs: 1 });
    const start = performance.now();
    expect(await refusal(slow.use(wish(keys), () => Promise.resolve()))).toMatch(
      /^kernel: Cannot read the modules in time/,
    );
    expect(performance.now() - start).toBeLessThan(2_000);
    expect(readdirSync(join(machine.dataDir, "trust"))).toEqual([]);
  });

  it("have no file for login shells where the modules have no shell", async () => {
    const keys = await modules((root) => mkdirSync(join(root, "etc/profile.d"), { recursive: true }));
    const { key } = await lay(keys);
    const layer = `/proc/${await machine.hostPid()}/root/l/${key}`;
    expect(readdirSync(join(layer, "etc"))).toEqual(["ssl"]);
  });
});

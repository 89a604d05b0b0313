import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { connect, createServer, type AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { FakeRegistry } from "../../daemon/src/modules/oci/testing/fake-registry.js";
import {
  hostArchitecture,
  layoutFiles,
  makeImage,
  makeIndex,
  savedArchive,
  writeFiles,
  type TestImage,
} from "../../daemon/src/modules/oci/testing/images.js";
import type { Member } from "../../daemon/src/modules/oci/testing/layers.js";
import { runCommand } from "../support/commands.js";
import { lacks } from "../support/needs.js";
import { TestSquashd } from "../support/squashd.js";

const squashd = new TestSquashd();
const home = mkdtempSync(join(tmpdir(), "squash-oci-"));
let registry: DebianRegistry;
let image: TestImage;

const dir = (name: string, mode = 0o755): Member => ({ name, type: "directory", mode });
const programs = ["sh", "cat", "stat", "find", "ls", "id", "readlink", "env", "pwd", "sort", "md5sum"];

/** A BusyBox, changed twice in every way that layers can change one another. */
const layers: readonly (readonly Member[])[] = [
  [
    ...["bin", "dev", "etc", "proc", "sys", "run", "srv", "hidden", "kept", "moved"].map((name) => dir(`${name}/`)),
    dir("tmp/", 0o1777),
    { name: "bin/busybox", content: readFileSync("/bin/busybox"), mode: 0o755 },
    ...programs.map((name): Member => ({ name: `bin/${name}`, type: "symlink", linkname: "busybox" })),
    { name: "etc/passwd", content: "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33:web:/srv:/bin/sh\n" },
    { name: "etc/group", content: "root:x:0:\nweb:x:33:\n" },
    { name: "etc/gone", content: "removed by the second layer" },
    { name: "etc/changed", content: "old" },
    { name: "hidden/one", content: "1" },
    { name: "hidden/two", content: "2" },
    { name: "kept/first", content: "the same file", mode: 0o640, uid: 33, gid: 33 },
    { name: "kept/second", type: "link", linkname: "kept/first" },
    { name: "moved/original", content: "moved" },
    { name: "replaced", content: "a file" },
    { name: "dev/null", type: "character-device", devmajor: 1, devminor: 3 },
  ],
  [
    { name: "etc/.wh.gone" },
    { name: "etc/changed", content: "new", mode: 0o600 },
    dir("hidden/", 0o711),
    { name: "hidden/.wh..wh..opq" },
    { name: "hidden/three", content: "3" },
    { name: "kept/.wh.first" },
    { name: "elsewhere", type: "link", linkname: "moved/original" },
    { name: "moved/.wh.original" },
    {
      name: "attributed",
      content: "x",
      pax: { "SCHILY.xattr.user.note": "kept", "SCHILY.xattr.trusted.overlay.opaque": "y" },
    },
  ],
  [
    dir("replaced/"),
    { name: "replaced/inside", content: "a directory by now" },
    { name: "srv/leads-out", type: "symlink", linkname: "../../../../etc/shadow" },
    { name: `srv/${"long".repeat(50)}/${"name".repeat(30)}`, content: "long" },
    { name: "etc/.wh.absent" },
  ],
];

const config = {
  Env: ["GREETING=from the image", "PATH=/bin:/usr/bin"],
  WorkingDir: "/srv",
  User: "web:web",
  Entrypoint: ["/bin/sh"],
  Cmd: ["-c", "true"],
};

/** Debian's registry, on loopback with its own directory. */
class DebianRegistry implements AsyncDisposable {
  readonly host: string;
  readonly #process: ChildProcess;

  private constructor(host: string, process: ChildProcess) {
    this.host = host;
    this.#process = process;
  }

  static async start(folder: string): Promise<DebianRegistry> {
    const host = `127.0.0.1:${await freePort()}`;
    mkdirSync(join(folder, "blobs"), { recursive: true });
    const settings = {
      version: "0.1",
      log: { level: "error" },
      storage: { filesystem: { rootdirectory: join(folder, "blobs") } },
      http: { addr: host },
    };
    writeFileSync(join(folder, "config.yml"), JSON.stringify(settings)); // which is YAML as well
    const child = spawn("docker-registry", ["serve", join(folder, "config.yml")], { stdio: "ignore" });
    const registry = new DebianRegistry(host, child);
    for (let tries = 0; !(await answers(host)); tries++) {
      if (tries > 200 || child.exitCode !== null) throw new Error("docker-registry does not start");
      await new Promise((done) => setTimeout(done, 50));
    }
    return registry;
  }

  async push(pushed: TestImage, repository: string, tag: string): Promise<void> {
    const base = `http://${this.host}/v2/${repository}`;
    for (const [digest, bytes] of pushed.blobs) {
      if (digest === pushed.manifest.digest) continue;
      const begun = await fetch(`${base}/blobs/uploads/`, { method: "POST" });
      const place = new URL(begun.headers.get("location") ?? "", base);
      place.searchParams.set("digest", digest);
      await this.#put(place, new Uint8Array(bytes), "application/octet-stream");
    }
    const manifest = pushed.blobs.get(pushed.manifest.digest)!;
    await this.#put(
      new URL(`${base}/manifests/${pushed.manifest.digest}`),
      new Uint8Array(manifest),
      pushed.manifest.mediaType,
    );
    const index = makeIndex([[`linux/${hostArchitecture}`, pushed.manifest]]);
    await this.#put(new URL(`${base}/manifests/${tag}`), new Uint8Array(index.bytes), index.descriptor.mediaType);
  }

  async #put(url: URL, body: Uint8Array<ArrayBuffer>, type: string): Promise<void> {
    const answer = await fetch(url, { method: "PUT", body, headers: { "content-type": type } });
    if (answer.status !== 201) throw new Error(`${url.pathname}: ${answer.status} ${await answer.text()}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const ended = new Promise((done) => this.#process.once("exit", done));
    this.#process.kill("SIGKILL");
    await ended;
  }
}

function freePort(): Promise<number> {
  const server = createServer();
  return new Promise((settle) => {
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address() as AddressInfo;
      server.close(() => settle(port));
    });
  });
}

function answers(host: string): Promise<boolean> {
  const [address, port] = host.split(":");
  return new Promise((settle) => {
    const socket = connect(Number(port), address);
    socket.once("connect", () => settle(true)).once("error", () => settle(false));
    socket.once("connect", () => socket.destroy());
  });
}

function mkmod(args: readonly string[], dataDir = squashd.dataDir) {
  return runCommand("squashd", ["mkmod", "from-oci", ...args], { SQUASH_DATA_DIR: dataDir, SQUASH_LOG_LEVEL: "warn" });
}

function manifestOf(
  name: string,
  dataDir = squashd.dataDir,
): { files: Record<string, { sha256: string }>; defaults?: unknown } {
  return JSON.parse(readFileSync(join(dataDir, "modules", `${name}.manifest.json`), "utf8")) as never;
}

async function inSandbox(names: string[], command: string, user?: string): Promise<string> {
  await using sandbox = await squashd.client.create({ layers: names });
  const { stdout, stderr, exit_code: status } = await sandbox.exec(command, user === undefined ? {} : { user });
  expect([stderr, status]).toEqual(["", 0]);
  return stdout;
}

/** Everything that is not the sandbox's own: names, kinds, modes, owners, links, times and contents. */
const listing =
  "cd /; find . -xdev \\( -path ./proc -o -path ./sys -o -path ./dev -o -path ./run -o -path ./etc/hosts -o -path ./etc/hostname" +
  " -o -path ./etc/resolv.conf -o -path ./etc/machine-id \\) -prune -o ! -path . ! -path ./etc -print | sort >/dev/shm/names;" +
  ' while read -r name; do stat -c \'%n %F %a %u:%g %Y\' "$name"; readlink "$name"; [ -d "$name" ] || [ -h "$name" ] || md5sum <"$name"; done </dev/shm/names';

describe.skipIf(lacks("root"))("mkmod from-oci", () => {
  beforeAll(async () => {
    const [first = [], second = [], third = []] = layers;
    image = await makeImage(
      [{ members: first, compression: "gzip" }, { members: second, compression: "zstd" }, { members: third }],
      { config, architecture: hostArchitecture },
    );
    registry = await DebianRegistry.start(home);
    await registry.push(image, "team/tool", "1.2");
    await squashd.start();
  });
  afterAll(async () => {
    await squashd[Symbol.asyncDispose]();
    await registry[Symbol.asyncDispose]();
    rmSync(home, { recursive: true, force: true });
  });

  it("makes a base of an image in a registry, in which commands run", async () => {
    const ended = await mkmod([`${registry.host}/team/tool:1.2`]);
    expect([/Cannot.*/.exec(ended.stderr)?.[0], ended.status]).toEqual([undefined, 0]);
    expect(ended.stdout).toMatch(/^000-tool-1\.2 {2}squashfs [\d.]+ MiB, erofs [\d.]+ MiB {2}in [\d.]+ s\n$/);
    const script =
      "ls -A /etc /hidden /kept /moved /srv; cat /etc/changed /kept/second /elsewhere /replaced/inside;" +
      " stat -c '%n %a %u:%g' /kept/second /hidden /tmp; readlink /srv/leads-out; cat /srv/leads-out 2>&1";
    await using sandbox = await squashd.client.create({ layers: ["000-tool-1.2"] });
    const { stdout } = await sandbox.exec(script, { user: "root" });
    for (const line of ["three", "second", "leads-out", "/kept/second 640 33:33", "/hidden 711 0:0", "/tmp 1777 0:0"])
      expect(stdout).toContain(`${line}\n`);
    expect(stdout).toContain("newthe same filemoveda directory by now");
    expect(stdout).toContain("../../../../etc/shadow\ncat: can't open '/srv/leads-out'");
    expect(stdout).not.toMatch(/^(?:gone|one|two|first|original|\.wh\..*)$/m);
  });

  it("keeps the image's defaults in the manifest", () => {
    expect(manifestOf("000-tool-1.2").defaults).toEqual({
      env: { GREETING: "from the image", PATH: "/bin:/usr/bin" },
      workdir: "/srv",
      user: "web",
      entrypoint: ["/bin/sh"],
      cmd: ["-c", "true"],
    });
  });

  it("has commands start as the image says, where a request says nothing else", async () => {
    const command = "id -un; pwd; echo $GREETING";
    expect(await inSandbox(["000-tool-1.2"], command)).toBe("web\n/srv\nfrom the image\n");
    await using sandbox = await squashd.client.create({ layers: ["000-tool-1.2"] });
    const other = await sandbox.exec(command, { user: 0, workdir: "/tmp", env: { GREETING: "hello" } });
    expect(other).toMatchObject({ stdout: "root\n/tmp\nhello\n", workdir: "/tmp" });
    await squashd.end("SIGKILL");
    await squashd.start();
    expect(await sandbox.exec(command)).toMatchObject({ stdout: "web\n/srv\nfrom the image\n", workdir: "/srv" });
  });

  it("makes a module of each layer, which overlayfs stacks to the very same files", async () => {
    const ended = await mkmod([`${registry.host}/team/tool:1.2`, "--per-layer", "--name", "layered"]);
    expect([/Cannot.*/.exec(ended.stderr)?.[0], ended.status]).toEqual([undefined, 0]);
    const names = ended.stdout
      .split("\n")
      .map((line) => line.split(" ")[0] ?? "")
      .filter((name) => name !== "");
    expect(names).toEqual(["000-layered-layer-1", "001-layered-layer-2", "002-layered-layer-3"]);
    const stacked = await inSandbox(names, listing, "root");
    expect(stacked).toBe(await inSandbox(["000-tool-1.2"], listing, "root"));
    expect(stacked.split("\n").length).toBeGreaterThan(50);
    expect(stacked).toContain("./hidden/three regular file 644 0:0 1700000000\n");
    // of two images the erofs one is used, so that this was it
    const args = ["--per-layer", "--name", "200-squashfs", "--format", "squashfs"];
    expect(await mkmod([`${registry.host}/team/tool:1.2`, ...args])).toMatchObject({ status: 0 });
    const stack = [200, 201, 202].map((number, index) => `${number}-squashfs-layer-${index + 1}`);
    expect(await inSandbox(stack, listing, "root")).toBe(stacked);
  });

  it("gives the same bytes from the registry, a layout, and both kinds of archives", async () => {
    const wanted = manifestOf("000-tool-1.2").files;
    const files = layoutFiles(image, makeIndex([[null, image.manifest, "team/tool:1.2"]]).bytes);
    const layout = join(home, "layout");
    writeFiles(layout, files);
    const [old, recent] = [join(home, "old.tar"), join(home, "new.tar.gz")];
    writeFileSync(old, await savedArchive(image, "team/tool:1.2"));
    execFileSync("tar", ["-czf", recent, "-C", layout, "."]);
    const sources = [
      ["--layout", layout],
      ["--archive", old],
      ["--archive", recent],
    ];
    const made = sources.map(async (source, index) => {
      const dataDir = join(home, `data-${index}`);
      const ended = await mkmod(source, dataDir);
      expect([/Cannot.*/.exec(ended.stderr)?.[0], ended.status]).toEqual([undefined, 0]);
      expect(manifestOf("000-tool-1.2", dataDir).files).toEqual(wanted);
    });
    await Promise.all(made);
  });

  it("refuses what a hostile registry serves, and makes nothing", async () => {
    await using hostile = await new FakeRegistry().start();
    const dataDir = join(home, "hostile");
    const refused = async (members: readonly Member[], message: RegExp): Promise<void> => {
      hostile.add(await makeImage([{ members, compression: "gzip" }], { architecture: hostArchitecture }), "latest");
      const ended = await mkmod([`${hostile.host}/team/image`], dataDir);
      expect(ended).toMatchObject({ status: 1, stdout: "", stderr: expect.stringMatching(message) as string });
    };
    const escape = join(home, "escaped");
    await refused([{ name: `../../../../../..${escape}`, content: "x" }], /is a path with "\.\."/);
    await refused(
      [
        { name: "l", type: "symlink", linkname: home },
        { name: "l/escaped", content: "x" },
      ],
      /lies below a file or link/,
    );
    await refused(
      [{ name: "l", type: "link", linkname: "/etc/shadow" }],
      /is a hard link to "\/etc\/shadow", which is no file/,
    );
    const ls = execFileSync("ls", ["-A", home, join(dataDir, "cache")], { encoding: "utf8" });
    expect(ls).not.toMatch(/escaped|mkbase-/);
  });
});

import { execFileSync } from "node:child_process";
import { copyFileSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { JobInfo, JobRequest, ModuleInfo } from "@squash/sdk";
import { hostArchitecture, makeImage, savedArchive } from "../../daemon/src/modules/oci/testing/images.js";
import type { Ended } from "../support/commands.js";
import { sendModule, trustByHand } from "../support/modules.js";
import { lacks } from "../support/needs.js";
import { useSquashd } from "../support/own-squashd.js";

const home = mkdtempSync(join(tmpdir(), "squash-exchange-"));
const open = join(home, "open");
mkdirSync(join(open, "tree/opt"), { recursive: true });
writeFileSync(join(open, "tree/opt/tool"), "a tool\n");
const env = { SQUASH_BUILD_DIRS: open, SQUASH_MODULE_FORMAT: "squashfs" };
const squashd = useSquashd({ env });
const folder = join(squashd.dataDir, "modules");

afterAll(() => rmSync(home, { recursive: true, force: true }));

const sq = (...args: string[]): Promise<Ended> => squashd.sq(...args);
const imageOf = (name: string, format = "squashfs"): string => join(folder, `${name}.${format}`);
const filesOf = (name: string): string[] =>
  readdirSync(folder)
    .filter((file) => file.includes(name))
    .toSorted();
const leftovers = (): string[] => [
  ...readdirSync(join(squashd.dataDir, "cache")).filter((name) => name.startsWith("mkbase-")),
  ...readdirSync(folder).filter((name) => name.startsWith(".")),
];

async function endOf(request: JobRequest | JobInfo): Promise<JobInfo> {
  let job = "id" in request ? request : await squashd.client.startJob(request);
  for await (const next of squashd.client.watchJob(job.id)) job = next;
  return job;
}

/** What is the same of a module wherever it is. */
async function facts(name: string): Promise<Partial<ModuleInfo>> {
  const { created: _created, used_by: _users, formats: _formats, ...rest } = await squashd.client.module(name);
  return rest;
}

describe.skipIf(lacks("root"))("a module that goes to another machine", () => {
  const squashfs = { formats: ["squashfs" as const] };

  beforeAll(async () => {
    const archive = join(open, "tool.tar");
    const config = {
      Env: ["GREETING=hello", "PATH=/bin"],
      WorkingDir: "/opt",
      User: "12",
      Entrypoint: ["tool"],
      Cmd: ["-v"],
    };
    const image = await makeImage([{ members: [{ name: "opt/x", content: "x" }] }], {
      config,
      architecture: hostArchitecture,
    });
    writeFileSync(archive, await savedArchive(image, "team/tool:1"));
    const relations = { requires: ["000-base-test"], conflicts: ["100-extra"] };
    for (const request of [
      { kind: "from-oci", archive, name: "000-tool", ...relations, ...squashfs },
      { kind: "from-dir", path: join(open, "tree"), name: "150-tree", ...relations },
    ] as const)
      expect(await endOf(request)).toMatchObject({ state: "done", error: null });
  });

  it("is what it was, though nothing but its image was sent", async () => {
    for (const [name, source, defaults] of [
      [
        "000-tool",
        "mkmod from-oci",
        { env: { GREETING: "hello", PATH: "/bin" }, workdir: "/opt", user: "12", entrypoint: ["tool"], cmd: ["-v"] },
      ],
      ["150-tree", "mkmod from-dir", null],
    ] as const) {
      const image = join(home, `${name}.squashfs`);
      copyFileSync(imageOf(name), image);
      const before = await facts(name);
      const shown = (await sq("module", "show", name)).stdout;
      expect(before).toMatchObject({ source, requires: ["000-base-test"], conflicts: ["100-extra"], defaults });
      await squashd.client.removeModule(name);
      expect(filesOf(name)).toEqual([]);
      expect(await sq("module", "push", image)).toMatchObject({ status: 0 });
      expect(await facts(name)).toEqual(before);
      const withoutTime = (text: string): string => text.replace(/^created .*\n/m, "");
      expect(withoutTime((await sq("module", "show", name)).stdout)).toBe(withoutTime(shown));
    }
    // and it has an effect
    const refused = squashd.client.create({ layers: ["000-base-test", "000-tool", "100-extra"] });
    await expect(refused).rejects.toMatchObject({ code: "module_conflict" });
    await using sandbox = await squashd.client.create({ layers: ["000-base-test", "000-tool"] });
    expect((await sandbox.exec("echo $GREETING; pwd; id -u; cat x")).stdout).toBe("hello\n/opt\n12\nx");
  });

  it("takes what its sender says of it instead", async () => {
    const image = join(home, "150-tree.squashfs");
    expect(await sq("module", "push", image, "151-other", "--requires", "")).toMatchObject({ status: 0 });
    expect(await facts("151-other")).toMatchObject({
      requires: [],
      conflicts: ["100-extra"],
      source: "mkmod from-dir",
    });
  });

  it("says the same to a machine where it was put by hand and is trusted", async () => {
    copyFileSync(join(home, "150-tree.squashfs"), imageOf("152-hand"));
    expect(await squashd.client.trustModule("152-hand")).toMatchObject({ requires: ["000-base-test"], problem: null });
  });

  it("is refused with a manifest that was tampered with, and takes nothing away", async () => {
    const image = readFileSync(join(home, "150-tree.squashfs"));
    const before = await facts("150-tree");
    const changed = (at: number, byte: number): Buffer => {
      const copy = Buffer.from(image);
      copy[image.length - 64 + at] = byte;
      return copy;
    };
    const text = image.lastIndexOf('{"name"');
    const hostile = [
      changed(16, 9), // version
      changed(23, 255), // length
      changed(50, (image.at(-14) ?? 0) ^ 1), // digest
      changed(text - image.length + 64, 0x5b), // text
      Buffer.concat([image.subarray(0, text + 9), image.subarray(-64)]),
    ];
    for (const bytes of hostile)
      for (const name of ["150-tree", "153-new"])
        expect(await sendModule(squashd.client, name, bytes, { replace: true })).toBe("module_invalid");
    expect(await facts("150-tree")).toEqual(before);
    expect(filesOf("153-new")).toEqual([]);
    expect(leftovers()).toEqual([]);
  });

  it("is mounted and used in either format with its manifest in it", async () => {
    const job = await endOf({
      kind: "from-dir",
      path: join(open, "tree"),
      name: "154-both",
      formats: ["squashfs", "erofs"],
      requires: ["000-base-test"],
    });
    expect(job).toMatchObject({ state: "done", error: null });
    for (const format of ["squashfs", "erofs"]) {
      const bytes = readFileSync(imageOf("154-both", format));
      expect([bytes.length % 4_096, bytes.subarray(-64, -48).toString()]).toEqual([0, "squash manifest\n"]);
      const name = `155-only-${format}`;
      expect(await sendModule(squashd.client, name, bytes)).toBe("taken");
      await using sandbox = await squashd.client.create({ layers: ["000-base-test", name] });
      expect((await sandbox.exec("cat /opt/tool")).stdout).toBe("a tool\n");
    }
  });
});

/** Everything of images, as the kernel shows it, but the time of the root directory: name, kind, mode, owner, size, time, number of names, target, content, attributes. */
function surveys(images: readonly string[]): string[] {
  const mount = join(home, "mnt");
  mkdirSync(mount, { recursive: true });
  const script = `mount -t "$1" -o ro,loop "$2" "$3"; cd "$3"
    stat -c '%n|%F|%a|%u:%g' .; find . ! -path . ! -type c -exec stat -c '%n|%F|%a|%u:%g|%Y' {} + | sort
    find . ! -type d ! -type c -exec stat -c '%n|%h|%s' {} + | sort
    find . -type c -exec stat -c '%n|%t:%T' {} + | sort; find . -type l -exec readlink {} ';' | sort
    find . -type f -exec sha256sum {} + | sort -k 2
    find . ! -type l ! -type c | sort | xargs -d '\\n' getfattr -d -m - -e hex --absolute-names || [ $? = 123 ]`;
  return images.map((image) => {
    const type = image.replace(/^.*\./, "");
    return execFileSync("unshare", ["-m", "sh", "-euc", script, "sh", type, image, mount], {
      encoding: "latin1",
      maxBuffer: 2 ** 26,
      stdio: ["ignore", "pipe", "ignore"],
    });
  });
}

describe.skipIf(lacks("root"))("a squashfs image that is made of an erofs one", () => {
  function pack(name: string, script: string, options: readonly string[] = []): void {
    const root = mkdtempSync(join(home, "root-"));
    execFileSync("sh", ["-euc", script], { cwd: root, stdio: "pipe" });
    execFileSync("mkfs.erofs", [...options, imageOf(name, "erofs"), root], { stdio: "ignore" });
    trustByHand(folder, name, { requires: ["000-base-test"], defaults: { env: { A: "b" } } });
  }

  const everything = `mkdir -p opt/deep etc 'odd ü name' opaque; echo file >opt/owned; chown 12:34 opt/owned; chmod 4755 opt/owned
    ln opt/owned opt/hard; ln -s ../nowhere opt/soft; ln -P opt/soft opt/soft2; mkfifo -m 600 opt/pipe; ln opt/pipe opt/pipe2
    cp /bin/busybox opt/capable; setcap cap_net_raw+ep opt/capable; setfattr -n user.note -v text opt/owned
    setfattr -n user.empty opt/deep; setfattr -n user.binary -v 0x00ff3d0a opt/deep; setfattr -n trusted.other -v x opt/deep
    setfattr -n trusted.overlay.opaque -v y opaque; setfattr -n trusted.overlay.origin opaque; mknod gone c 0 0
    echo large >opt/ids; chown 70000:4000000000 opt/ids; truncate -s 3000000 opt/holes; echo end >>opt/holes
    head -c 700000 /dev/urandom >opt/random; yes | head -c 900000 >opt/text; : >opt/none
    for i in $(seq 300); do echo $i >"odd ü name/$i"; done; chmod 1777 opt/deep; touch -d 2001-02-03T04:05:06.789Z opt/owned
    touch -h -d 1999-01-01 opt/soft; touch -d 2020-01-01 etc; chmod 2750 .`;

  it.each([
    ["compressed", ["-zlz4hc", "-C4096"]],
    ["in large clusters", ["-zlz4", "-C65536", "-Efragments,dedupe"]],
    ["as it is", []],
    ["in chunks", ["--chunksize=4096"]],
  ] as const)("has the very same files, whether that one is %s", async (kind, options) => {
    const name = `160-all-${kind.replaceAll(" ", "-")}`;
    pack(name, everything, options);
    expect(await sq("module", "convert", name, "--to", "squashfs")).toMatchObject({ status: 0, stdout: `${name}\n` });
    expect(filesOf(name)).toEqual([`${name}.erofs`, `${name}.manifest.json`, `${name}.squashfs`]);
    const [erofs, squashfs] = surveys([imageOf(name, "erofs"), imageOf(name)]);
    expect(squashfs).toBe(erofs);
    for (const shown of [
      /opt\/owned\|regular file\|4755\|12:34\|981173106\n/,
      /opt\/ids\|.*\|70000:4000000000\|/,
      /security.capability=0x/,
      /trusted.overlay.opaque=0x79/,
      /user.binary=0x00ff3d0a/,
      /^\.\/gone\|0:0$/m,
      /^\.\/opt\/pipe2\|2\|0$/m,
      /^\.\|directory\|2750\|0:0$/m,
    ])
      expect(squashfs).toMatch(shown);
    // the same bytes again, with the facts of the module in them
    const first = readFileSync(imageOf(name));
    expect(first.subarray(-400).toString("latin1")).toContain(
      '"requires":["000-base-test"],"defaults":{"env":{"A":"b"}',
    );
    rmSync(imageOf(name));
    trustByHand(folder, name, { requires: ["000-base-test"], defaults: { env: { A: "b" } } });
    expect(await endOf({ kind: "convert", name, format: "squashfs" })).toMatchObject({ state: "done", error: null });
    expect(readFileSync(imageOf(name)).equals(first)).toBe(true);
    expect(leftovers()).toEqual([]);
  });

  it("leaves out sockets and devices, and says so", async () => {
    const socket = `python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("run.sock")'`;
    pack("161-left", `${socket}; mknod null c 1 3; mknod disk b 8 300; echo kept >kept`);
    const job = await endOf({ kind: "convert", name: "161-left", format: "squashfs" });
    expect(job).toMatchObject({ state: "done", error: null });
    expect(job.lines.join("\n")).toMatch(/leaving out 1 sockets and 2 devices: \["\/disk","\/null","\/run.sock"\]/);
    const [, squashfs] = surveys([imageOf("161-left", "erofs"), imageOf("161-left")]);
    expect(squashfs).toMatch(/kept/);
    expect(squashfs).not.toMatch(/null|disk|sock/);
  });

  it.each([
    [
      "an access list",
      "echo x >a; setfattr -n system.posix_acl_access -v 0x0200000001000600ffffffff02000400e803000004000400ffffffff10000600ffffffff20000400ffffffff a",
      /file "\/a": it has an access list/,
    ],
    ["a time before 1970", "echo x >a; touch -d 1960-01-01 a", /file "\/a": .*cannot hold its time/],
    [
      "an attribute with an odd name",
      "mkdir d; echo x >d/a; setfattr -n 'user.a=b' -v x d/a",
      /file "\/d\/a": .*unusual name/,
    ],
    ["a root of somebody", "echo x >a; chown 5:5 .", /"\/" has owner 5:5/],
    ["a root with attributes", "echo x >a; setfattr -n user.x -v y .", /"\/" has attribute user.x/],
  ])("is not made of one with %s, which would be lost", async (_, script, error) => {
    pack("162-not", script);
    const job = await endOf({ kind: "convert", name: "162-not", format: "squashfs" });
    expect(job).toMatchObject({ state: "failed", code: "build_failed", error: expect.stringMatching(error) as string });
    expect(filesOf("162-not")).toEqual(["162-not.erofs", "162-not.manifest.json"]);
    expect(leftovers()).toEqual([]);
  });

  it("is not made of one that is damaged or not trusted", async () => {
    pack("163-odd", "head -c 300000 /dev/urandom >a");
    const bytes = readFileSync(imageOf("163-odd", "erofs"));
    bytes.fill(255, bytes.length - 8_192);
    writeFileSync(imageOf("163-odd", "erofs"), bytes);
    const convert: JobRequest = { kind: "convert", name: "163-odd", format: "squashfs" };
    expect(await endOf(convert)).toMatchObject({ state: "failed", code: "module_invalid" });
    bytes.fill(0, 1_024 + 36, 4_096);
    writeFileSync(imageOf("163-odd", "erofs"), bytes);
    await squashd.client.trustModule("163-odd");
    expect(await endOf(convert)).toMatchObject({ state: "failed", error: expect.any(String) as string });
    expect(filesOf("163-odd")).toEqual(["163-odd.erofs", "163-odd.manifest.json"]);
    expect(leftovers()).toEqual([]);
  });

  it("is made of a snapshot that is promoted, and hides what was removed", async () => {
    await using sandbox = await squashd.client.create({ id: "box", layers: ["000-base-test", "100-extra"] });
    await sandbox.exec(`rm /opt/extra/file; rm -r /home; mkdir /home; echo new >/home/new; ln /home/new /home/same
      mkfifo /home/pipe; truncate -s 1M /home/holes; chown 3:4 /home/new; echo changed >/etc/passwd`);
    await sandbox.snapshot({ label: "one" });
    expect(await sq("promote", "box", "one", "200-box", "--format", "both")).toMatchObject({ status: 0 });
    expect(filesOf("200-box")).toEqual(["200-box.erofs", "200-box.manifest.json", "200-box.squashfs"]);
    const [erofs, squashfs] = surveys([imageOf("200-box", "erofs"), imageOf("200-box")]);
    expect(squashfs).toBe(erofs);
    expect(squashfs).toMatch(/\.\/opt\/extra\/file\|0:0/);
    expect(
      await endOf(await sandbox.promote({ snapshot: "one", module: "201-box", formats: ["squashfs"] })),
    ).toMatchObject({
      state: "done",
    });
    expect(filesOf("201-box")).toEqual(["201-box.manifest.json", "201-box.squashfs"]);
    expect(await squashd.client.module("201-box")).toMatchObject({ requires: ["100-extra", "000-base-test"] });
    await using copy = await squashd.client.create({ layers: ["000-base-test", "100-extra", "201-box"] });
    const list = "cd /; ls opt/extra home; cat home/same etc/passwd; stat -c '%u %h' home/new";
    expect((await copy.exec(list)).stdout).toBe((await sandbox.exec(list)).stdout);
    expect(leftovers()).toEqual([]);
  });
});

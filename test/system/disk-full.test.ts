import { createHash } from "node:crypto";
import { readdirSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { isSquashError, type Sandbox } from "@squash/sdk";
import { killInit } from "../support/kill-init.js";
import { lacks } from "../support/needs.js";
import { useSquashd } from "../support/own-squashd.js";
import { FileServer, makeRootfs, sha256Of } from "../support/rootfs.js";
import { SmallDisk } from "../support/small-disk.js";

const kib = 1024;
/** bytes that are left on the disk */
const rests = [0, 4 * kib, 16 * kib, 64 * kib, 256 * kib, kib * kib];
const content = 96 * kib;

let disk: SmallDisk;
const squashd = useSquashd({
  here: true,
  env: { SQUASH_SUBNET: "none", SQUASH_UPPER_LIMIT_MB: "16" },
  prepare: ({ dataDir }) => (disk = new SmallDisk(dataDir, 48)),
});
const { client } = squashd;
const server = new FileServer();
let box: Sandbox;
let tar: { readonly url: string; readonly sha256: string };

beforeAll(async () => {
  await server.start();
  const bytes = await makeRootfs([{ name: "./opt/much", content: Buffer.alloc(300 * kib, "not the same again ") }]);
  tar = { url: server.serve("tree", bytes)[1] ?? "", sha256: sha256Of(bytes) };
  box = await client.create({ id: "box", layers: ["000-base-test"] });
  await print(`head -c ${content} /dev/urandom >/root/data; echo first >/root/file`);
  await box.snapshot({ label: "kept" });
  await print("echo second >/root/file");
});
afterAll(async () => {
  disk.clear();
  await squashd.destroyAll();
  await server[Symbol.asyncDispose]();
});

async function print(command: string, sandbox = box): Promise<string> {
  const { exit_code, stdout, stderr } = await sandbox.exec(command);
  expect({ exit_code, stderr }).toEqual({ exit_code: 0, stderr: "" });
  return stdout;
}

/** Files of squashd's own, without those that may come at any time. */
function files(): string[] {
  return readdirSync(squashd.dataDir, { recursive: true, encoding: "utf8" })
    .filter((path) => !/^(filler|lost\+found|cache|audit)|\/log\/|\/upper\.\d+\/|\.seal\b/.test(path))
    .toSorted();
}

const image = Buffer.from("no image, and it does not come to that");

/** What fails, and what undoes it where it works. */
const operations: readonly {
  readonly name: string;
  readonly codes: readonly string[];
  readonly work: () => Promise<unknown>;
  readonly undo: () => Promise<unknown>;
}[] = [
  {
    name: "create",
    codes: ["create_failed"],
    work: () => client.create({ id: "new", layers: ["000-base-test"] }),
    undo: () => client.sandbox("new").destroy(),
  },
  { name: "exec", codes: [], work: () => print("true"), undo: () => Promise.resolve() },
  {
    name: "snapshot",
    codes: ["snapshot_failed"],
    work: () => box.snapshot({ label: "more" }),
    undo: () => box.deleteSnapshot("more"),
  },
  {
    name: "restore",
    codes: ["change_failed"],
    work: async () => expect((await box.restore("kept")).state).toBe("ready"),
    undo: () => print("echo second >/root/file"),
  },
  {
    name: "activate",
    codes: ["change_failed"],
    work: () => box.activate("100-extra"),
    undo: () => box.deactivate("100-extra"),
  },
  {
    name: "fork",
    codes: ["create_failed", "snapshot_failed"],
    work: () => box.fork({ target_id: "twin" }),
    undo: () => client.sandbox("twin").destroy(),
  },
  {
    name: "upload",
    codes: ["build_failed"],
    work: () =>
      client
        .putModule("100-sent", {
          content: (async function* () {
            for (let at = 0; at < 40; at++)
              yield await Promise.resolve(Buffer.concat([image, Buffer.alloc(65_536, at)]));
          })(),
          size: 40 * (image.length + 65_536),
          sha256: createHash("sha256").update("another").digest("hex"),
        })
        .catch((error: unknown) => {
          if (isSquashError(error) && error.code === "digest_mismatch") return; // all of it found room
          throw error;
        }),
    undo: () => Promise.resolve(),
  },
  {
    name: "mkmod",
    codes: ["build_failed"],
    work: async () => {
      let job = await client.startJob({ kind: "from-tar", name: "100-made", ...tar });
      for await (const next of client.watchJob(job.id)) job = next;
      if (job.state !== "done") throw Object.assign(new Error(job.error ?? ""), { code: job.code });
    },
    undo: () => client.removeModule("100-made"),
  },
];

describe.skipIf(lacks("root"))("a disk that is full", () => {
  it.each(operations)(
    "makes $name fail as a whole, with a clear error, until there is room again",
    async ({ work, undo, codes }) => {
      const usual = files();
      let failures = 0;
      for (const left of rests) {
        disk.fill(left);
        const error = await work().then(
          () => null,
          (reason: unknown) => reason as { readonly code?: string; readonly message: string },
        );
        if (error === null) {
          await undo();
        } else {
          failures++;
          expect({ left, code: error.code, message: error.message }).toMatchObject({
            code: expect.toBeOneOf([...codes]) as unknown,
            message: expect.stringMatching(/no space|ENOSPC|full/i) as unknown,
          });
        }
        // it works as before, although nothing has room
        expect(await print("cat /root/file; wc -c </root/data")).toBe(`second\n${content}\n`);
        disk.clear();
        const names = await client.list();
        expect(names.map(({ id, state, layers }) => [id, state, layers])).toEqual([
          ["box", "ready", ["000-base-test"]],
        ]);
        expect((await box.history()).map(({ label }) => label)).toEqual(["kept"]);
        expect(withoutGeneration(files())).toEqual(withoutGeneration(usual));
        expect(await client.collect({ dry_run: true })).toEqual({ images: [], files: [], bytes: 0 });
      }
      if (codes.length > 0) expect(failures).toBeGreaterThan(0);
      await work();
      await undo();
    },
  );

  it("does not keep a sandbox from being destroyed, which makes room, nor squashd from a start", async () => {
    await box.snapshot({ label: "gone" });
    await client.create({ id: "second", layers: ["000-base-test"] });
    disk.fill(0);
    const full = { code: "kernel", message: expect.stringMatching(/no space/) as unknown };
    await expect(box.deleteSnapshot("gone")).rejects.toMatchObject(full);
    expect((await box.history()).map(({ label }) => label)).toEqual(["kept", "gone"]);
    await client.sandbox("second").destroy();
    await box.deleteSnapshot("gone");
    disk.fill(0);
    await squashd.end("SIGKILL");
    await squashd.start();
    expect(await print("cat /root/file")).toBe("second\n");
    disk.clear();
    await box.restore("kept");
    expect(await print("cat /root/file; wc -c </root/data")).toBe(`first\n${content}\n`);
  });

  it("brings a sandbox back whose init dies meanwhile", async () => {
    await print("echo third >/root/file");
    const info = await box.info();
    disk.fill(0);
    killInit(info);
    await expect.poll(async () => (await box.info()).restarts).toBe(1);
    await expect.poll(async () => (await box.info()).state).toBe("ready");
    expect(await print("cat /root/file")).toBe("third\n");
    disk.clear();
    await squashd.end("SIGKILL");
    await squashd.start();
    await expect.poll(async () => (await box.info()).state).toBe("ready");
    expect(await print("cat /root/file")).toBe("third\n");
  });
});

const withoutGeneration = (paths: readonly string[]): string[] =>
  paths.map((path) => path.replace(/upper\.\d+/, "upper"));

it.skipIf(lacks("root"))("SmallDisk leaves next to nothing", () => {
  disk.fill(0);
  expect(disk.free).toBe(0);
  disk.clear();
});

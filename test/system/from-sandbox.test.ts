import { copyFileSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import type { JobInfo, FromSandboxJob, JobRequest, Sandbox } from "@squash/sdk";
import type { Ended } from "../support/commands.js";
import { lacks } from "../support/needs.js";
import { useSquashd } from "../support/own-squashd.js";

const squashd = useSquashd({ env: { SQUASH_SUBNET: "none" } });
const folder = join(squashd.dataDir, "modules");

afterEach(async () => {
  await squashd.destroyAll();
  expect(await squashd.client.collect({ dry_run: true })).toEqual({ images: [], files: [], bytes: 0 });
  const left = readdirSync(join(squashd.dataDir, "cache")).filter((name) => !/^(verified|upper-template)/.test(name));
  expect([left, readdirSync(folder).filter((name) => name.startsWith("."))]).toEqual([[], []]);
});

const sq = (...args: string[]): Promise<Ended> => squashd.sq(...args);

async function print(sandbox: Sandbox, command: string): Promise<string> {
  const { exit_code, stdout, stderr } = await sandbox.exec(command);
  expect({ exit_code, stderr }).toEqual({ exit_code: 0, stderr: "" });
  return stdout;
}

async function endOf(request: JobRequest): Promise<JobInfo> {
  let job = await squashd.client.startJob(request);
  for await (const next of squashd.client.watchJob(job.id)) job = next;
  return job;
}

const digestsOf = (name: string): string[] =>
  Object.values(
    (
      JSON.parse(readFileSync(join(folder, `${name}.manifest.json`), "utf8")) as {
        files: Record<string, { sha256: string }>;
      }
    ).files,
  ).map(({ sha256 }) => sha256);

/** Every file with all that a module must keep of it, but for what each sandbox has of its own. */
const files =
  "find / -xdev ! -path / ! -path /etc ! -path '/proc*' ! -path '/dev*' ! -path '/sys*' ! -path '/etc/host*' ! -path /etc/machine-id";
const survey = `{ ${files} -exec stat -c '%n %f %u %g %Y %T %t' {} +; ${files} ! -type d -exec stat -c '%n %h %s' {} +;
  ${files} -type l ! -path '/bin/*' -print -exec readlink {} ';'; ${files} -type f -exec md5sum {} +; } | sort`;
const layers = ["000-base-test", "100-extra"];

/** Everything in which files can differ from those below. */
const change = `mkdir -p /w/deep/er; echo one >/w/file; ln /w/file /w/same; ln -s ../../out /w/link; mkfifo -m 600 /w/pipe
  chown 12:34 /w/deep; chmod 4751 /w/same; touch -d @1000000000 /w/deep/er; rm /opt/extra/file; echo new >/etc/new
  truncate -s 3000000 /w/holes; echo end >>/w/holes; dd if=/dev/urandom of=/w/large bs=64k count=20 2>/dev/null
  rm -r /home; mkdir /home; echo only >/home/this; rm -r /usr/sbin; echo file >/usr/sbin; printf '' >/w/empty`;

describe.skipIf(lacks("root"))("mkmod from-sandbox", () => {
  it("makes a module of all that was written, which gives the very same files above the same modules", async () => {
    const sandbox = await squashd.client.create({ id: "one", layers });
    await print(sandbox, change);
    const job = await endOf({ kind: "from-sandbox", sandbox: "one", name: "900-one" });
    expect(job).toMatchObject({ state: "done", error: null, modules: ["900-one"] });
    expect(await squashd.client.module("900-one")).toMatchObject({
      source: "mkmod from-sandbox one",
      formats: ["squashfs", "erofs"],
      requires: ["100-extra", "000-base-test"],
    });
    const wanted = await print(sandbox, survey);
    // the same files give the same bytes
    const digests = digestsOf("900-one");
    expect(digests).toHaveLength(2);
    expect(await endOf({ kind: "from-sandbox", sandbox: "one", name: "900-one", replace: true })).toMatchObject({
      state: "done",
    });
    expect(digestsOf("900-one")).toEqual(digests);
    expect(wanted).toMatch(/^\/w\/holes 1 3000004$/m);
    const copy = await squashd.client.create({ layers: [...layers, "900-one"] });
    expect(await print(copy, survey)).toBe(wanted);
    // the other image of the same module gives the same
    copyFileSync(join(folder, "900-one.squashfs"), join(folder, "900-squash.squashfs"));
    await squashd.client.trustModule("900-squash");
    const other = await squashd.client.create({ layers: [...layers, "900-squash"] });
    expect(await print(other, survey)).toBe(wanted);
    // and the sandbox went on meanwhile
    expect(await print(sandbox, "echo more >>/w/file; cat /w/same")).toBe("one\nmore\n");
  });

  it("leaves out what belongs to the machine, caches and logs, unless told to keep it", async () => {
    const sandbox = await squashd.client.create({ id: "three", layers: ["000-base-test"] });
    await print(
      sandbox,
      "mkdir -p /var/cache/apt /var/log /root/.cache; echo x | tee /tmp/x /var/cache/apt/x /var/log/x /root/.cache/x /run/x /kept >/dev/null; rm /etc/hostname",
    );
    const [clean, all] = await Promise.all([
      sq("mkmod", "from-sandbox", "three", "900-clean"),
      sq("mkmod", "from-sandbox", "three", "900-all", "--all"),
    ]);
    expect([clean, all]).toMatchObject([{ status: 0, stdout: "900-clean\n" }, { status: 0 }]);
    for (const [name, found] of [
      ["900-clean", "/kept\n"],
      ["900-all", "/kept\n/root/.cache/x\n/run/x\n/tmp/x\n/var/cache/apt/x\n/var/log/x\n"],
    ] as const) {
      const copy = await squashd.client.create({ layers: ["000-base-test", name] });
      const paths = "/kept /root/.cache/x /run/x /tmp/x /var/cache/apt/x /var/log/x";
      expect(await print(copy, `ls ${paths} 2>/dev/null; true`)).toBe(found);
      expect(await print(copy, "test -f /etc/hostname && hostname")).toBe(await print(copy, "cat /etc/hostname"));
    }
  });

  it("takes a snapshot as it was, also one of several images", async () => {
    const sandbox = await squashd.client.create({ id: "four", layers: ["000-base-test"] });
    await print(sandbox, "echo first >/a; echo first >/b");
    await sandbox.snapshot({ label: "first" });
    await sandbox.restore("first");
    await print(sandbox, "echo second >/a; rm /b; echo second >/c");
    await sandbox.snapshot({ label: "second" });
    await print(sandbox, "echo third >/a");
    const job = { kind: "from-sandbox", sandbox: "four", snapshot: "second", name: "900-second" } as const;
    expect(await endOf(job)).toMatchObject({ state: "done" });
    expect(await squashd.client.module("900-second")).toMatchObject({ source: "mkmod from-sandbox four@second" });
    const copy = await squashd.client.create({ layers: ["000-base-test", "900-second"] });
    expect(await print(copy, "cat /a /c; ls /b 2>&1 | head -c 2; ls -l /b 2>/dev/null | wc -l")).toBe(
      "second\nsecond\nls0\n",
    );
  });

  it("refuses what cannot be, and leaves nothing then", async () => {
    const sandbox = await squashd.client.create({ id: "five", layers });
    const refused = async (request: Partial<FromSandboxJob>, message: RegExp): Promise<void> => {
      const job = { kind: "from-sandbox", sandbox: "five", name: "900-x", ...request } as const;
      const reason = await endOf(job).then(
        ({ code, error }) => `${code ?? ""}: ${error ?? ""}`,
        (error: unknown) => `${(error as { code: string }).code}: ${(error as Error).message}`,
      );
      expect(reason).toMatch(message);
      expect(readdirSync(folder).filter((name) => name.includes("900-x"))).toEqual([]);
    };
    await refused({}, /^invalid_request: .*nothing was written that would be in it/);
    await print(sandbox, "echo x >/x");
    await refused({ sandbox: "none" }, /^sandbox_not_found: /);
    await refused({ snapshot: "none" }, /^snapshot_not_found: /);
    await refused({ name: "../x" }, /^invalid_request: Cannot name a module/);
    await refused({ name: "100-extra" }, /^module_exists: /);
    await refused({ name: "050-low" }, /^invalid_request: .*would lie below "100-extra", .*give it a higher number/);
  });

  it("is cancelled without a trace", async () => {
    const sandbox = await squashd.client.create({ id: "six", layers });
    await print(sandbox, "dd if=/dev/urandom of=/large bs=1M count=25 2>/dev/null");
    const job = await squashd.client.startJob({ kind: "from-sandbox", sandbox: "six", name: "900-six" });
    for await (const { step } of squashd.client.watchJob(job.id)) if (step === "packing it") break;
    await squashd.client.removeJob(job.id);
    expect(await squashd.client.job(job.id)).toMatchObject({ state: "cancelled" });
    expect(readdirSync(folder).filter((name) => name.includes("900-six"))).toEqual([]);
    expect(await print(sandbox, "ls /large")).toBe("/large\n");
  });

  it("leaves nothing after squashd was killed in the midst of it", async () => {
    const sandbox = await squashd.client.create({ id: "seven", layers });
    await print(sandbox, "dd if=/dev/urandom of=/large bs=1M count=25 2>/dev/null");
    const job = await squashd.client.startJob({ kind: "from-sandbox", sandbox: "seven", name: "900-seven" });
    for await (const { step } of squashd.client.watchJob(job.id)) if (step === "packing it") break;
    await squashd.end("SIGKILL");
    await squashd.start();
    await expect
      .poll(() => readdirSync(join(squashd.dataDir, "cache")).filter((name) => name.startsWith("mkbase-")))
      .toEqual([]);
    expect(readdirSync(folder).filter((name) => name.includes("900-seven"))).toEqual([]);
    expect(await print(sandbox, "ls /large")).toBe("/large\n");
  });
});

describe.skipIf(lacks("root"))("a module that says what it goes with", () => {
  it("is refused in a living sandbox and by the command line as in a new one, and the sandbox stays as it was", async () => {
    const sandbox = await squashd.client.create({ id: "eight", layers: ["000-base-test"] });
    await print(sandbox, "echo x >/x");
    const make = (name: string, more: Partial<JobRequest>): Promise<JobInfo> =>
      endOf({ kind: "from-sandbox", sandbox: "eight", name, ...more } as JobRequest);
    const made = [make("900-needs", { requires: ["100-extra"] }), make("900-hates", { conflicts: ["100-extra"] })];
    for (const job of await Promise.all(made)) expect([job.state, job.error]).toEqual(["done", null]);
    await expect(sandbox.activate("900-needs")).rejects.toMatchObject({ code: "module_requires" });
    expect((await sq("activate", "eight", "900-needs")).stderr).toMatch(/"900-needs" requires "100-extra"/);
    expect((await sq("create", "other", "--layers", "000-base-test,900-needs")).stderr).toMatch(/requires "100-extra"/);
    await sandbox.activate("100-extra");
    expect((await sandbox.activate("900-needs")).layers).toEqual(["900-needs", "100-extra", "000-base-test"]);
    const conflict = await sq("activate", "eight", "900-hates");
    expect(conflict).toMatchObject({
      status: 1,
      stderr: expect.stringMatching(/"900-hates" conflicts with it/) as string,
    });
    expect((await sandbox.info()).layers).toEqual(["900-needs", "100-extra", "000-base-test"]);
    expect(await print(sandbox, "cat /x")).toBe("x\n");
  });
});

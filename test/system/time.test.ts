import { afterEach, describe, expect, it } from "vitest";
import type { Sandbox } from "@squash/sdk";
import { lacks } from "../support/needs.js";
import { useSquashd } from "../support/own-squashd.js";

async function print(sandbox: Sandbox, command: string): Promise<string> {
  const { exit_code, stdout, stderr } = await sandbox.exec(command);
  expect({ exit_code, stderr }).toEqual({ exit_code: 0, stderr: "" });
  return stdout;
}

/** every file with all that a snapshot must keep of it, but for what a sandbox has of its own */
const files =
  "find / -xdev ! -path '/proc*' ! -path '/dev*' ! -path '/sys*' ! -path '/etc/host*' ! -path /etc/machine-id ! -path /etc/resolv.conf";
const survey = `{ ${files} -exec stat -c '%n %f %u %g %Y %T %t' {} +; ${files} ! -type d -exec stat -c '%n %h %s' {} +;
  ${files} -type l ! -path '/bin/*' -print -exec readlink {} ';'; ${files} -type f -exec md5sum {} +; } | sort`;

describe.skipIf(lacks("root")).each(["tmpfs", "btrfs"])("with uppers on %s,", (backend) => {
  const env = { SQUASH_UPPER_BACKEND: backend, SQUASH_POOL_MB: "2048" };
  const squashd = useSquashd({ env });

  afterEach(async () => {
    await squashd.destroyAll();
    expect(await squashd.client.collect({ dry_run: true })).toEqual({ images: [], files: [], bytes: 0 });
  });

  describe("a snapshot", () => {
    it("brings back exactly the files of its moment", async () => {
      const sandbox = await squashd.client.create({ id: "a", layers: ["000-base-test", "100-extra"] });
      await print(
        sandbox,
        `mkdir -p /w/deep/er /w/gone; echo one >/w/file; ln /w/file /w/same; ln -s file /w/link; mkfifo -m 600 /w/pipe; chown 12:34 /w/deep
      chmod 4751 /w/same; touch -d @1000000000 /w/deep/er; rm /opt/extra/file; echo new >/etc/new; truncate -s 10000000 /w/holes
      echo end >>/w/holes; rm -r /var; mkdir /var; echo only >/var/this`,
      );
      const first = await print(sandbox, survey);
      expect(await sandbox.snapshot({ label: "first" })).toMatchObject({ snapshot: "first" });
      await print(sandbox, "rm -r /w; echo changed >/etc/new; echo back >/opt/extra/file; rm -r /var; echo x >/later");
      const second = await print(sandbox, survey);
      await sandbox.snapshot({ label: "second" });
      expect(second).not.toBe(first);

      expect(await sandbox.restore("first")).toMatchObject({
        state: "ready",
        active_snapshot: "first",
        upper_bytes: 0,
      });
      expect(await print(sandbox, survey)).toBe(first);
      await sandbox.restore("second");
      expect(await print(sandbox, survey)).toBe(second);

      // what is written after a restore, and kept, includes what was restored
      await sandbox.restore("first");
      await print(sandbox, "echo more >>/w/file; rm /w/link; rm -r /w/deep");
      const third = await print(sandbox, survey);
      await sandbox.snapshot({ label: "third" });
      await sandbox.restore("second");
      await sandbox.restore("third");
      expect(await print(sandbox, survey)).toBe(third);
      expect((await sandbox.history()).map(({ label, parent, depth }) => [label, parent, depth])).toEqual([
        ["first", null, 1],
        ["second", "first", 1],
        ["third", "first", 2],
      ]);
    });

    it("lets what runs go on, and refuses a restore under it unless told what to do", async () => {
      const sandbox = await squashd.client.create({ id: "b" });
      await print(
        sandbox,
        "(i=0; while :; do i=$((i + 1)); echo $i >/new; mv /new /tick; done) >/dev/null 2>&1 & sleep 0.1",
      );
      await sandbox.snapshot({ label: "running" });
      const tick = await print(sandbox, "cat /tick");
      expect(await print(sandbox, "sleep 0.1; cat /tick")).not.toBe(tick);
      await expect(sandbox.restore("running")).rejects.toMatchObject({
        code: "sandbox_busy",
        details: { processes: expect.arrayContaining([expect.objectContaining({ name: "sh" })]) as unknown },
      });
      await expect(sandbox.restore("running", { running: "wait", timeout: 1 })).rejects.toMatchObject({
        code: "sandbox_busy",
      });
      await sandbox.restore("running", { running: "kill" });
      const after = await print(sandbox, "cat /tick");
      expect(await print(sandbox, "sleep 0.1; cat /tick")).toBe(after);
    });

    it("waits for commands to end when asked to, and lets later ones wait for the change", async () => {
      const sandbox = await squashd.client.create({ id: "c" });
      await sandbox.snapshot({ label: "empty" });
      const command = sandbox.exec("echo late >/late; sleep 0.5; cat /late");
      const restored = sandbox.restore("empty", { running: "wait" });
      expect((await command).stdout).toBe("late\n");
      await restored;
      expect(await print(sandbox, "ls /late 2>/dev/null || echo none")).toBe("none\n");
    });

    it("goes with its sandbox, and can be deleted without harm to later ones", async () => {
      const sandbox = await squashd.client.create({ id: "d" });
      await print(sandbox, "echo 1 >/one");
      await sandbox.snapshot({ label: "one" });
      await sandbox.restore("one");
      await print(sandbox, "echo 2 >/two");
      await sandbox.snapshot({ label: "two" });
      await expect(sandbox.snapshot({ label: "two" })).rejects.toMatchObject({ code: "snapshot_exists" });
      await sandbox.deleteSnapshot("one");
      await expect(sandbox.restore("one")).rejects.toMatchObject({ code: "snapshot_not_found" });
      await sandbox.restore("two");
      expect(await print(sandbox, "cat /one /two")).toBe("1\n2\n");
      expect(await sandbox.history()).toMatchObject([{ label: "two", parent: null, active: true }]);
    });

    it("survives a kill of squashd, and so does what was restored", async () => {
      const sandbox = await squashd.client.create({ id: "e" });
      await print(sandbox, "echo kept >/kept");
      await sandbox.snapshot({ label: "kept" });
      await sandbox.restore("kept");
      await print(sandbox, "rm /kept; echo since >/since");
      await squashd.end("SIGKILL");
      await squashd.start();
      expect(await sandbox.info()).toMatchObject({ state: "ready", active_snapshot: "kept" });
      expect(await print(sandbox, "ls /kept 2>/dev/null; cat /since")).toBe("since\n");
      await sandbox.restore("kept");
      expect(await print(sandbox, "cat /kept; ls /since 2>/dev/null || echo none")).toBe("kept\nnone\n");
    });

    it("keeps a stack of many restores shallow", async () => {
      const sandbox = await squashd.client.create({ id: "deep" });
      for (let round = 0; round < 20; round++) {
        await print(
          sandbox,
          `echo ${round} >/file-${round}; rm -f /file-${round - 3}; rm -rf /dir; mkdir /dir; : >/dir/${round}`,
        );
        await sandbox.snapshot({ label: `s${round}` });
        await sandbox.restore(`s${round}`);
      }
      expect(await print(sandbox, "ls -d /file-* /dir/*")).toBe("/dir/19\n/file-17\n/file-18\n/file-19\n");
      expect(Math.max(...(await sandbox.history()).map(({ depth }) => depth))).toBeLessThanOrEqual(16);
      await sandbox.restore("s5");
      expect(await print(sandbox, "ls -d /file-* /dir/*")).toBe("/dir/5\n/file-3\n/file-4\n/file-5\n");
    });
  });

  describe("a stack", () => {
    it("takes modules and gives them back while what was written stays", async () => {
      const sandbox = await squashd.client.create({ id: "s", layers: ["000-base-test"] });
      await print(sandbox, "echo mine >/mine");
      expect(await sandbox.activate("100-extra")).toMatchObject({ layers: ["100-extra", "000-base-test"] });
      expect(await print(sandbox, "cat /mine /opt/extra/file")).toBe("mine\nfrom the extra layer\n");
      await expect(sandbox.activate("100-extra")).rejects.toMatchObject({ code: "module_active" });
      await squashd.end("SIGKILL");
      await squashd.start();
      expect(await print(sandbox, "cat /opt/extra/file")).toBe("from the extra layer\n");
      expect(await sandbox.deactivate("100-extra")).toMatchObject({ layers: ["000-base-test"] });
      expect(await print(sandbox, "ls /opt/extra 2>/dev/null; cat /mine")).toBe("mine\n");
      await expect(sandbox.deactivate("100-extra")).rejects.toMatchObject({ code: "module_not_active" });
      await expect(sandbox.deactivate("000-base-test")).rejects.toMatchObject({ code: "invalid_request" });
      await expect(sandbox.activate("999-none")).rejects.toMatchObject({ code: "module_not_found" });
      expect(await print(sandbox, "cat /mine")).toBe("mine\n");
    });

    it("is changed in the cell as it is where nothing runs in it, and in a new one otherwise", async () => {
      const sandbox = await squashd.client.create({ id: "c", layers: ["000-base-test"] });
      const { pid } = await sandbox.info();
      const look = "ls /dev/shm; grep -c ' overlay ' /proc/self/mountinfo; cat /tmp/mine; ls /opt";
      await print(sandbox, "echo shared >/dev/shm/shared; echo mine >/tmp/mine");
      await sandbox.snapshot({ label: "before" });
      await sandbox.activate("100-extra");
      expect(await print(sandbox, look)).toBe("shared\n1\nmine\nextra\n");
      await print(sandbox, "echo other >/tmp/mine");
      // memory that processes share is none of a moment's files
      await sandbox.restore("before");
      expect(await print(sandbox, `${look} 2>/dev/null || true`)).toBe("1\nmine\n");
      await expect(sandbox.exec("echo shared >/dev/shm/shared")).resolves.toMatchObject({ exit_code: 0 });
      expect(await sandbox.info()).toMatchObject({ pid, state: "ready" });
      await print(sandbox, "sleep 1000 >/dev/null 2>&1 &");
      await sandbox.activate("100-extra", { running: "kill" });
      expect(await sandbox.info()).not.toMatchObject({ pid });
      expect(await print(sandbox, `ps -o args | grep -c '^sleep 100[0]' || true; ${look}`)).toBe("0\n1\nmine\nextra\n");
    });

    it("cannot be hidden from by a process that calls itself one of squash's own", async () => {
      const sandbox = await squashd.client.create({ id: "h", layers: ["000-base-test"] });
      // what tells them is the program, which nobody inside can start
      for (const command of ["/proc/1/exe", "/proc/self/exe -c 'exec /proc/1/exe'", "cp /proc/1/exe /tmp/own"])
        expect((await sandbox.exec(command)).exit_code).not.toBe(0);
      await print(sandbox, "sh -c 'printf sq-session >/proc/$$/comm; while :; do sleep 1; done' >/dev/null 2>&1 &");
      await expect(sandbox.activate("100-extra")).rejects.toMatchObject({
        code: "sandbox_busy",
        message: /sq-session/,
      });
    });
  });

  describe("a fork", () => {
    it("has files, limits and policy of its origin, and a name of its own", async () => {
      const origin = await squashd.client.create({ id: "origin", memory_mb: 200, allow_net: ["none"], owner: "me" });
      await print(origin, "echo shared >/shared; echo 1 >/etc/machine-id");
      const [fork] = await origin.fork({ target_id: "twin" });
      expect(fork?.created).toMatchObject({
        id: "twin",
        memory_mb: 200,
        allow_net: ["none"],
        owner: "me",
        forked_from: "origin",
      });
      const twin = squashd.client.sandbox("twin");
      expect(await print(twin, "cat /shared; hostname; cat /etc/hostname; cat /etc/machine-id | wc -c")).toBe(
        "shared\ntwin\ntwin\n33\n",
      );
      await print(twin, "echo changed >/shared");
      expect(await print(origin, "cat /shared")).toBe("shared\n");
      await origin.destroy();
      expect(await print(twin, "cat /shared")).toBe("changed\n");
      const again = await twin.fork({ count: 3 });
      for (const one of again) expect(await print(one, "cat /shared")).toBe("changed\n");
    });

    it("comes of a snapshot, too, and of all or none", async () => {
      const origin = await squashd.client.create({ id: "origin" });
      await print(origin, "echo then >/file");
      await origin.snapshot({ label: "then" });
      await print(origin, "echo now >/file");
      const [fork] = await origin.fork({ from: "then" });
      expect(fork === undefined ? "" : await print(fork, "cat /file")).toBe("then\n");
      await expect(origin.fork({ target_id: "origin" })).rejects.toMatchObject({ code: "sandbox_exists" });
      await expect(origin.fork({ from: "never" })).rejects.toMatchObject({ code: "snapshot_not_found" });
      expect(await squashd.client.list()).toHaveLength(2);
    });
  });
});

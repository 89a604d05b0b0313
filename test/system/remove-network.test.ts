import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import { describe, expect, it } from "vitest";
import { lacks } from "../support/needs.js";
import { repositoryRoot } from "../support/root.js";
import { useSquashd } from "../support/own-squashd.js";

const run = promisify(execFile);

describe.skipIf(lacks("root"))("sq doctor --remove-network", () => {
  const squashd = useSquashd();

  /** Runs it where the squashd of this test is, or was. */
  async function remove(): Promise<{ status: number; output: string }> {
    const program = join(repositoryRoot, "daemon/dist/main.js");
    const [command, args] = squashd.netns.enter(process.execPath, [program, "doctor", "--remove-network"]);
    const env = {
      PATH: process.env["PATH"] ?? "",
      SQUASH_DATA_DIR: squashd.dataDir,
      SQUASH_RUN_DIR: squashd.runDir,
      SQUASH_CGROUP_ROOT: squashd.mark,
    };
    return run(command, args, { env }).then(
      ({ stdout }) => ({ status: 0, output: stdout }),
      (error: { code: number; stderr: string }) => ({ status: error.code, output: error.stderr }),
    );
  }

  const table = (): boolean => squashd.netns.run("nft", "list", "tables").includes("inet squash");
  const gateway = (): boolean => squashd.netns.run("ip", "-o", "addr", "show", "lo").includes("10.200.0.1");

  it("is refused while squashd runs or sandboxes are left, and takes everything off afterwards", async () => {
    expect(await remove()).toMatchObject({ status: 1, output: expect.stringContaining("another squashd") as unknown });
    const sandbox = await squashd.client.create({ id: "left" });
    await squashd.end("SIGKILL");
    expect(await remove()).toMatchObject({ status: 1, output: expect.stringContaining("cells are left") as unknown });
    expect([table(), gateway()]).toEqual([true, true]);
    await squashd.start();
    expect(await sandbox.exec("echo alive")).toMatchObject({ stdout: "alive\n" });
    await sandbox.destroy();
    await squashd.client.create({ id: "kept" });
    await squashd.client.sandbox("kept").destroy();
    await squashd.end("SIGKILL"); // the pool's cells are left as well
    expect((await remove()).status).toBe(1);
    await squashd.start();
    await squashd.end();
    expect([table(), gateway()]).toEqual([false, false]);
    squashd.netns.run("nft", "add", "table", "inet", "squash");
    squashd.netns.run("ip", "addr", "add", "10.200.0.1/32", "dev", "lo");
    expect(await remove()).toMatchObject({ status: 0 });
    expect([table(), gateway()]).toEqual([false, false]);
    expect(await remove()).toMatchObject({ status: 0 });
  });
});

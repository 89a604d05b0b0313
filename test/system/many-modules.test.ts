import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import type { Sandbox } from "@squash/sdk";
import { trustByHand } from "../support/modules.js";
import { lacks } from "../support/needs.js";
import { useSquashd } from "../support/own-squashd.js";
import type { TestSquashd } from "../support/squashd.js";

const most = 120;
/** names as long as they may be, so that no buffer is large enough by luck */
const names = Array.from({ length: most }, (_, index) => `${index + 100}-${"long-".repeat(24)}m`.slice(0, 128));
const squashd = useSquashd({ env: { SQUASH_SUBNET: "none" }, prepare: makeModules });

function makeModules({ dataDir }: TestSquashd): undefined {
  const folder = join(dataDir, "modules");
  mkdirSync(folder, { recursive: true });
  const tree = mkdtempSync(join(tmpdir(), "sq-many-"));
  for (const [index, name] of names.entries()) {
    writeFileSync(join(tree, "top"), `${index}\n`);
    mkdirSync(join(tree, "each"), { recursive: true });
    writeFileSync(join(tree, `each/${index}`), "");
    execFileSync("mkfs.erofs", ["--all-root", join(folder, `${name}.erofs`), tree], { stdio: "ignore" });
    rmSync(join(tree, `each/${index}`));
    trustByHand(folder, name);
  }
  rmSync(tree, { recursive: true });
}

async function print(sandbox: Sandbox, command: string): Promise<string> {
  const { exit_code, stdout, stderr } = await sandbox.exec(command);
  expect({ exit_code, stderr }).toEqual({ exit_code: 0, stderr: "" });
  return stdout;
}

describe.skipIf(lacks("root"))("a stack of 120 modules", () => {
  it("is made, grows to its last module, and takes snapshots that lie as deep as they may on top of it", async () => {
    const layers = ["000-base-test", ...names.slice(0, most - 2)];
    const sandbox = await squashd.client.create({ id: "many", layers });
    expect(await print(sandbox, "cat /top; ls /each | wc -l")).toBe(`${most - 3}\n${most - 2}\n`);
    expect((await sandbox.activate(names[most - 2] ?? "")).layers).toHaveLength(most);
    expect(await print(sandbox, "cat /top; ls /each | wc -l")).toBe(`${most - 2}\n${most - 1}\n`);
    for (let depth = 1; depth <= 17; depth++) {
      await print(sandbox, `echo ${depth} >/own; rm /each/${depth}`);
      await sandbox.snapshot({ label: `s${depth}` });
      await sandbox.restore(`s${depth}`);
    }
    // the background merges some of them meanwhile
    expect(Math.max(...(await sandbox.history()).map(({ depth }) => depth))).toBeLessThanOrEqual(16);
    expect(await print(sandbox, "cat /own /top; ls /each | wc -l")).toBe(`17\n${most - 2}\n${most - 18}\n`);
    await sandbox.restore("s16");
    expect(await print(sandbox, "cat /own; ls /each | wc -l")).toBe(`16\n${most - 17}\n`);
    const { totals, modified } = await sandbox.diff({ from: "base" });
    expect(totals).toMatchObject({ deleted: 16, modified: 0 });
    expect(modified).toEqual([]);
    const [fork] = await sandbox.fork();
    expect(await print(squashd.client.sandbox(fork?.id ?? ""), "cat /own /top")).toBe(`16\n${most - 2}\n`);
  });

  it("gets no module more", async () => {
    const sandbox = squashd.client.sandbox("many");
    const last = names[most - 1] ?? "";
    await expect(sandbox.activate(last)).rejects.toMatchObject({
      code: "invalid_request",
      message: `Cannot activate "${last}" in "many": a stack has at most 120 modules; deactivate one first`,
    });
    const layers = ["000-base-test", ...names];
    await expect(squashd.client.create({ layers })).rejects.toMatchObject({ code: "invalid_request" });
    await expect(squashd.client.create({ layers: layers.join(",") })).rejects.toMatchObject({
      code: "invalid_request",
      message: expect.stringMatching(/at most 120/) as string,
    });
    expect(await print(sandbox, "cat /own")).toBe("16\n");
    await sandbox.deactivate(names[0] ?? "");
    expect((await sandbox.activate(last)).layers).toHaveLength(most);
    expect(await print(sandbox, "cat /top")).toBe(`${most - 1}\n`);
  });
});

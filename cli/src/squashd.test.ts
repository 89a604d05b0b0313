import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";

import { Interruption } from "./exit-status.js";
import { InstalledSquashd } from "./squashd.js";

const directory = mkdtempSync(join(tmpdir(), "squash-cli-"));
afterAll(() => rmSync(directory, { recursive: true }));

function program(source: string, signal = new AbortController().signal): InstalledSquashd {
  const path = join(directory, "program.mjs");
  writeFileSync(path, source);
  return new InstalledSquashd({ MARK: "m" }, signal, () => path);
}

describe("InstalledSquashd", () => {
  it("passes arguments and environment on and returns the output", async () => {
    const squashd = program("console.log(process.argv.slice(2).join('|'), process.env.MARK, process.env.HOME)");
    expect(await squashd.read(["a b", "$c"])).toBe("a b|$c m undefined\n");
  });

  it("passes the exit status on", async () => {
    expect(await program("process.exitCode = 7").run([])).toBe(7);
    expect(await program("process.kill(process.pid, 'SIGKILL')").run([])).toBe(137);
  });

  it("stops the program when interrupted", async () => {
    const controller = new AbortController();
    const running = program("setInterval(() => {}, 1000)", controller.signal).run([]);
    const reason = new Interruption("SIGTERM");
    setTimeout(() => controller.abort(reason), 50);
    await expect(running).rejects.toBe(reason);
    expect(reason.status).toBe(143);
  });

  it("does not read without end", async () => {
    const squashd = program("for (let i = 0; i < 40; i++) process.stdout.write('x'.repeat(65536))");
    await expect(squashd.read(["doctor"])).rejects.toThrow(/larger than 1 MiB/);
  });
});

import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import type { DiffAnswer, Sandbox } from "@squash/sdk";
import { hostState, settledState, type HostState } from "../support/leaks.js";
import { lacks } from "../support/needs.js";
import { TestSquashd } from "../support/squashd.js";

const squashd = new TestSquashd();
const marks = [squashd.mark];
let before: HostState;

beforeAll(async () => {
  before = hostState(marks);
  await squashd.start();
});
afterEach(async () => {
  for (const { id } of await squashd.client.list()) await squashd.client.sandbox(id).destroy();
  expect(await squashd.client.collect({ dry_run: true })).toEqual({ images: [], bytes: 0 });
});
afterAll(async () => {
  await squashd[Symbol.asyncDispose]();
  expect(await settledState(before, marks)).toEqual(before);
});

async function print(sandbox: Sandbox, command: string): Promise<string> {
  const { exit_code, stdout, stderr } = await sandbox.exec(command);
  expect({ exit_code, stderr }).toEqual({ exit_code: 0, stderr: "" });
  return stdout;
}

function short({ added, modified, deleted, metadata }: DiffAnswer): string[] {
  const list = (letter: string, entries: DiffAnswer["added"]): string[] => entries.map(({ path }) => letter + path);
  return [...list("A", added), ...list("M", modified), ...list("D", deleted), ...list("m", metadata)];
}

describe.skipIf(lacks("root"))("a difference", () => {
  it("is told between snapshots, the present, the base and other sandboxes", async () => {
    const sandbox = await squashd.client.create({ id: "a", layers: ["000-base-test", "100-extra"] });
    await sandbox.snapshot({ label: "live" });
    await print(sandbox, "mkdir /w; echo one >/w/file; ln -s file /w/link; echo x >/w/mode; rm /opt/extra/file");
    await sandbox.snapshot({ label: "one" });
    await print(sandbox, "echo two >/w/file; ln -sf other /w/link; chmod 600 /w/mode; rm -r /var; echo back >/opt/extra/file");
    expect(short(await sandbox.diff({ from: "@a/live", to: "one" }))).toEqual(["A/w", "A/w/file", "A/w/link", "A/w/mode", "D/opt/extra/file"]);
    const now = await sandbox.diff();
    console.log(JSON.stringify(now));
    expect(now).toMatchObject({ from: "one", to: "live", truncated: false });
    console.log(short(await sandbox.diff({ from: "base" })));
    const file = await sandbox.diffFile("/w/file");
    console.log(file);
  });
});

import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { mkmodCommand } from "./mkmod-command.js";
import { FakeRegistry } from "./oci/testing/fake-registry.js";

let dataDir: string;

beforeEach(() => {
  dataDir = mkdtempSync(join(tmpdir(), "squash-mkmod-"));
});
afterEach(() => rmSync(dataDir, { recursive: true, force: true }));

async function mkmod(...args: string[]): Promise<{ status: number; out: string; err: string }> {
  let [out, err] = ["", ""];
  const io = { out: (text: string) => void (out += text), err: (text: string) => void (err += text) };
  const status = await mkmodCommand(args, io, { dataDir }, new AbortController().signal);
  return { status, out, err };
}

describe("squashd mkmod", () => {
  it("shows its usage when asked", async () => {
    expect(await mkmod("--help")).toMatchObject({ status: 0, out: /^Usage: squashd mkmod from-oci/, err: "" });
  });

  it.each([
    [[], /a kind of module is missing/],
    [["from-git"], /no kind "from-git"/],
    [["from-oci"], /needs the reference of an image/],
    [["from-oci", "a", "b"], /"b" is too much/],
    [["from-oci", "--layout", "a", "--archive", "b"], /exclude each other/],
    [["from-oci", "--layout", "a", "--insecure"], /are for registries/],
    [["from-oci", "--archive", "a", "--authfile", "b"], /are for registries/],
    [["from-oci", "a", "--format", "zip"], /no format "zip"/],
    [["from-oci", "a", "--unknown"], /--unknown/],
  ])("refuses %j with its usage", async (args, message) => {
    const { status, err } = await mkmod(...args);
    expect([status, err]).toEqual([2, expect.stringMatching(message)]);
    expect(err).toContain("Usage: squashd mkmod");
  });

  it.each([
    [["Bad Reference"], /^squashd mkmod: Cannot read the image reference/m],
    [["x", "--platform", "amd64"], /Cannot read the platform "amd64"/],
    [["x", "--name", "../x"], /Cannot name a module/],
    [["x", "--authfile", "/nonexistent/file"], /Cannot read passwords of registries from "\/nonexistent\/file"/],
    [["--layout", "/nonexistent"], /neither an index.json nor/],
    [["--archive", "/nonexistent"], /ENOENT/],
  ])("says why it cannot do %j, and leaves nothing", async (args, message) => {
    expect(await mkmod("from-oci", ...args)).toMatchObject({ status: 1, out: "", err: message });
    expect(existsSync(join(dataDir, "cache")) ? readdirSync(join(dataDir, "cache")) : []).toEqual([]);
  });

  it("shows a registry the password that the file has for it, and never says it", async () => {
    await using registry = await new FakeRegistry().start();
    registry.instead = (_request, response) => {
      response.writeHead(401, { "www-authenticate": 'Basic realm="r"' }).end();
      return true;
    };
    const authfile = join(dataDir, "auth.json");
    const auth = Buffer.from("user:secret").toString("base64");
    writeFileSync(authfile, JSON.stringify({ auths: { [registry.host]: { auth } } }));
    const { status, err } = await mkmod("from-oci", `${registry.host}/team/image`, "--authfile", authfile);
    expect([status, registry.asked.at(-1)]).toEqual([1, `/v2/team/image/manifests/latest Basic ${auth}`]);
    expect(err).toMatch(/answers 401/);
    expect(err).not.toMatch(/secret/);
    writeFileSync(authfile, JSON.stringify({ auths: { [registry.host]: { auth: "secret" } } }));
    const damaged = await mkmod("from-oci", `${registry.host}/team/image`, "--authfile", authfile);
    expect(damaged.err).toMatch(/is no "auth" of user name and password/);
    expect(damaged.err).not.toContain("secret");
  });
});

import { chmodSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { lacks } from "../support/needs.js";
import { useSquashd } from "../support/own-squashd.js";

const canary = "canary-7b1f0c93aa52";

describe.skipIf(lacks("root", "nft"))("secrets of a running squashd", () => {
  const squashd = useSquashd();
  const file = (): string => join(squashd.dataDir, "secrets.json");

  async function sq(...args: string[]): Promise<string> {
    const { status, stdout, stderr } = await squashd.sq(...args);
    // its sandbox was made without secrets, which is told where it gets one
    const said = stderr.replace(/^sq: .* does not trust the proxy yet, .*\n/, "");
    expect({ args, status, said }).toEqual({ args, status: 0, said: "" });
    expect(stdout).not.toContain(canary);
    return stdout;
  }

  const isProxied = (): boolean =>
    /"sq\d+h"/.test(squashd.netns.run("nft", "list", "set", "inet", "squash", "proxied"));

  it("are set, listed, granted and removed by sq, and in force for sandboxes that run", async () => {
    writeFileSync(join(squashd.home, "value"), `${canary}\n`);
    await using sandbox = await squashd.client.create({ id: `secrets-${process.pid}` });
    expect(isProxied()).toBe(false);
    expect(
      await sq("secret", "set", "KEY", "--host", "api.example.com", "--value-file", join(squashd.home, "value")),
    ).toContain("KEY");
    expect(readFileSync(file(), "utf8")).toContain(canary);
    expect((statSync(file()).mode & 0o777).toString(8)).toBe("600");
    expect(await sq("secret", "list")).toMatch(/KEY +api\.example\.com/);
    expect(await sandbox.info()).toMatchObject({ secrets: null, secrets_granted: ["KEY"] });
    expect(isProxied()).toBe(true);
    expect(await sq("secret", "grant", sandbox.id, "--none")).toBe("none\n");
    expect(isProxied()).toBe(false);
    expect(await sq("secret", "grant", sandbox.id, "KEY")).toBe("KEY\n");
    expect(isProxied()).toBe(true);
    expect(await sq("ca", "show")).toContain("fingerprint");
    await sq("secret", "rm", "KEY");
    expect(await sandbox.info()).toMatchObject({ secrets: ["KEY"], secrets_granted: [] });
    expect(isProxied()).toBe(false);
    expect(await sq("secret", "audit")).toContain("TIME");
  });

  it("come from the file when somebody writes it, and stay as they were while it is broken", async () => {
    const { client } = squashd;
    const names = async (): Promise<string[]> => (await client.secrets()).secrets.map(({ name }) => name);
    const write = (text: string): void => {
      writeFileSync(file(), text);
      chmodSync(file(), 0o600);
    };
    write(JSON.stringify({ secrets: { HAND: { value: canary, allowed_hosts: ["a.example"] } } }));
    await expect.poll(names).toEqual(["HAND"]);
    write("{");
    await expect.poll(async () => (await client.health()).status).toBe("degraded");
    expect(await names()).toEqual(["HAND"]);
    expect((await client.secrets()).problem).toContain("is not JSON");
    write('{"secrets": {}}');
    await expect.poll(names).toEqual([]);
    expect((await client.health()).status).toBe("ok");
    expect(squashd.output).not.toContain(canary);
  });

  it("outlive a restart, with those who have them", async () => {
    const { client } = squashd;
    await client.putSecret("KEY", { value: canary, allowed_hosts: ["api.example.com"] });
    await using some = await client.create({ id: `secrets-some-${process.pid}`, secrets: ["KEY"] });
    await using none = await client.create({ id: `secrets-none-${process.pid}`, secrets: [] });
    await squashd.end();
    await squashd.start();
    expect([(await some.info()).secrets_granted, (await none.info()).secrets_granted]).toEqual([["KEY"], []]);
    expect(isProxied()).toBe(true);
    await client.removeSecret("KEY");
  });
});

describe.skipIf(lacks("root"))("secrets without a network", () => {
  const squashd = useSquashd({ env: { SQUASH_SUBNET: "none" } });

  it("can be kept, and cannot be granted", async () => {
    const { client } = squashd;
    await client.putSecret("KEY", { value: canary, allowed_hosts: ["api.example.com"] });
    const refused = { code: "invalid_request", message: expect.stringContaining('SQUASH_SUBNET is "none"') as string };
    await expect(client.create({ secrets: ["KEY"] })).rejects.toMatchObject(refused);
    await using sandbox = await client.create();
    expect((await sandbox.info()).secrets_granted).toEqual([]);
    await expect(sandbox.setSecrets(["KEY"])).rejects.toMatchObject(refused);
    await expect(client.ca()).rejects.toMatchObject({ code: "network_off" });
  });
});

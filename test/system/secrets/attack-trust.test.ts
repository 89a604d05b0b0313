import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeEach, describe, expect, it } from "vitest";
import type { Sandbox } from "@squash/sdk";
import { lacks } from "../../support/needs.js";
import { shell } from "../../support/secrets/inside.js";
import { useSecrets } from "../../support/secrets/target.js";
import { usualSecrets } from "../../support/secrets/usual-secrets.js";

const target = useSecrets();
const { squashd } = target;
const { TOKEN } = usualSecrets;
/** what a link that is followed on the host leads to */
const victim = mkdtempSync(join(tmpdir(), "sqt-victim-"));
const files = ["ca-certificates.crt", "squash-secrets.sh", "sq-proxy-ca.crt"];

beforeEach(() => {
  rmSync(victim, { recursive: true, force: true });
  mkdirSync(victim);
  for (const file of files) writeFileSync(join(victim, file), "untouched");
});
afterAll(() => rmSync(victim, { recursive: true }));

const contents = (): Record<string, string> =>
  Object.fromEntries(readdirSync(victim).map((name) => [name, readFileSync(join(victim, name), "utf8")]));
const untouched = Object.fromEntries(files.map((file) => [file, "untouched"]));

/** All that makes squashd lay trust in anew. */
async function liveThrough(box: Sandbox): Promise<void> {
  await box.setSecrets(["TOKEN"]);
  await box.setSecrets(null);
  await box.snapshot({ label: "planted" });
  await box.fork({ target_id: "heir" });
  await squashd.client.sandbox("heir").destroy();
  await box.restore("planted");
  await box.activate("100-extra");
  await squashd.end("SIGKILL");
  await squashd.start();
  process.kill((await box.info()).pid ?? -1, "SIGKILL");
  await expect.poll(() => box.info(), { timeout: 10_000 }).toMatchObject({ state: "ready", restarts: 1 });
  await box.exec("true");
}

const bundle = "/etc/ssl/certs/ca-certificates.crt";
const profile = "/etc/profile.d/squash-secrets.sh";
const alone = "/usr/local/share/ca-certificates/sq-proxy-ca.crt";
const plants: Readonly<Record<string, string>> = {
  "a link in the place of each file": `ln -sf ${victim}/ca-certificates.crt ${bundle}; ln -sf ${victim}/squash-secrets.sh ${profile}; ln -sf ${victim}/sq-proxy-ca.crt ${alone}`,
  "links in the places of their folders": `for d in /etc/ssl/certs /etc/profile.d /usr/local/share/ca-certificates; do rm -rf $d; ln -s ${victim} $d; done`,
  "a link in the place of /etc": `mv /etc /etc.old; ln -s ${victim} /etc`,
  "links of many levels": `ln -sf ../../../../../../../../../..${victim}/ca-certificates.crt ${bundle}; ln -sfn /proc/1/root${victim} /usr/local/share/ca-certificates`,
  "pipes, which keep who opens them waiting": `rm -f ${bundle} ${profile} ${alone}; mkfifo ${bundle} ${profile} ${alone}`,
  "folders in the places of files": `rm -f ${bundle} ${profile} ${alone}; mkdir ${bundle} ${profile} ${alone}`,
  "nothing at all": `rm -rf /etc/ssl /etc/profile.d /usr/local`,
};

describe.skipIf(lacks("root"))("where trust and placeholders lie, a sandbox that plants", () => {
  it.each(Object.entries(plants))("%s changes nothing outside, and nobody waits", async (_, plant) => {
    const box = await target.create({ id: "planter" });
    try {
      expect(await shell(box, plant)).toBe("");
      await liveThrough(box);
      expect(contents()).toEqual(untouched);
      expect(existsSync(victim)).toBe(true);
      // what it did to itself it has, and it may be mended from inside
      expect((await box.exec("echo $TOKEN")).stdout).toBe(`${TOKEN.placeholder}\n`);
    } finally {
      await box.destroy();
    }
    expect(contents()).toEqual(untouched);
    expect(await squashd.client.health()).toMatchObject({ status: "ok" });
  });

  it("links would lead out for who writes by a path on the host", async () => {
    const box = await target.create({ id: "planter" });
    await shell(box, plants["a link in the place of each file"] ?? "");
    const upper = readdirSync(join(squashd.dataDir, "sandboxes/planter")).find((name) => name.startsWith("upper."));
    writeFileSync(join(squashd.dataDir, "sandboxes/planter", upper ?? "", "data", bundle), "overwritten");
    expect(contents()).toEqual({ ...untouched, "ca-certificates.crt": "overwritten" });
    await box.destroy();
  });

  it("a trust of its own trusts that, and changes nobody else's", async () => {
    const box = await target.create({ id: "planter" });
    const other = await target.create({ id: "other" });
    await shell(box, `echo broken >${bundle}`);
    const ask = `curl -sS -H "Authorization: Bearer $TOKEN" https://api.example.com/record`;
    expect(await shell(box, ask)).toMatch(/^curl: \(77\)|^curl: \(60\)/);
    expect(await shell(other, ask)).toBe("recorded\n");
    await squashd.destroyAll();
  });
});

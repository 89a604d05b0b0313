import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Sandbox } from "@squash/sdk";
import { killInit } from "../../support/kill-init.js";
import { lacks } from "../../support/needs.js";
import { clientBase } from "../../support/secrets/client-base.js";
import {
  laidIn,
  layInWithoutCare,
  leadingPlants,
  makeHostileModule,
  pipes,
  Victim,
} from "../../support/secrets/hostile-modules.js";
import { shell } from "../../support/secrets/inside.js";
import { useSecrets } from "../../support/secrets/target.js";
import { usualSecrets } from "../../support/secrets/usual-secrets.js";

const target = useSecrets();
const { squashd } = target;
const { TOKEN } = usualSecrets;
/** what links that are followed on the host lead to, a folder for each sandbox */
const victims = mkdtempSync(join(tmpdir(), "sqt-victims-"));
const files = ["ca-certificates.crt", "squash-secrets.sh", "sq-proxy-ca.crt"];
afterAll(() => rmSync(victims, { recursive: true }));

function makeVictim(name: string): string {
  const victim = join(victims, name);
  mkdirSync(victim);
  for (const file of files) writeFileSync(join(victim, file), "untouched");
  return victim;
}

function contents(name: string): Record<string, string> {
  const victim = join(victims, name);
  return Object.fromEntries(readdirSync(victim).map((file) => [file, readFileSync(join(victim, file), "utf8")]));
}
const untouched = Object.fromEntries(files.map((file) => [file, "untouched"]));

/** All that makes squashd lay trust in anew while it runs. */
async function liveThrough(box: Sandbox): Promise<void> {
  await box.setSecrets(["TOKEN"]);
  await box.setSecrets(null);
  await box.snapshot({ label: "planted" });
  await box.fork({ target_id: `${box.id}-heir` });
  await squashd.client.sandbox(`${box.id}-heir`).destroy();
  await box.restore("planted");
  await box.activate("100-extra");
}

const bundle = "/etc/ssl/certs/ca-certificates.crt";
const profile = "/etc/profile.d/squash-secrets.sh";
const alone = "/usr/local/share/ca-certificates/sq-proxy-ca.crt";
/** What is planted, with the folder on the host to which it leads. */
const plants: Readonly<Record<string, (victim: string) => string>> = {
  "a link in the place of each file": (victim) =>
    `ln -sf ${victim}/ca-certificates.crt ${bundle}; ln -sf ${victim}/squash-secrets.sh ${profile}; ln -sf ${victim}/sq-proxy-ca.crt ${alone}`,
  "links in the places of their folders": (victim) =>
    `for d in /etc/ssl/certs /etc/profile.d /usr/local/share/ca-certificates; do rm -rf $d; ln -s ${victim} $d; done`,
  "a link in the place of /etc": (victim) => `mv /etc /etc.old; ln -s ${victim} /etc`,
  "links of many levels": (victim) =>
    `ln -sf ../../../../../../../../../..${victim}/ca-certificates.crt ${bundle}; ln -sfn /proc/1/root${victim} /usr/local/share/ca-certificates`,
  "pipes, which keep who opens them waiting": () =>
    `rm -f ${bundle} ${profile} ${alone}; mkfifo ${bundle} ${profile} ${alone}`,
  "folders in the places of files": () => `rm -f ${bundle} ${profile} ${alone}; mkdir ${bundle} ${profile} ${alone}`,
  "nothing at all": () => `rm -rf /etc/ssl /etc/profile.d /usr/local`,
};

describe.skipIf(lacks("root"))("where trust and placeholders lie, a sandbox that plants", () => {
  const names = Object.keys(plants);
  const idOf = (name: string): string => `planter-${names.indexOf(name)}`;

  // all of them at once: what takes time is squashd's end and start
  beforeAll(async () => {
    await Promise.all(
      Object.entries(plants).map(async ([name, plant]) => {
        const box = await target.create({ id: idOf(name) });
        expect(await shell(box, plant(makeVictim(idOf(name))))).toBe("");
        await liveThrough(box);
      }),
    );
    await squashd.end("SIGKILL");
    await squashd.start();
    for (const name of names) killInit(await squashd.client.sandbox(idOf(name)).info());
  }, 120_000);

  it.each(names)("%s changes nothing outside, and nobody waits", async (name) => {
    const box = squashd.client.sandbox(idOf(name));
    try {
      await expect.poll(() => box.info(), { timeout: 10_000 }).toMatchObject({ state: "ready", restarts: 1 });
      expect(contents(box.id)).toEqual(untouched);
      // what it did to itself it has, and it may be mended from inside
      expect((await box.exec("echo $TOKEN")).stdout).toBe(`${TOKEN.placeholder}\n`);
    } finally {
      await box.destroy();
    }
    expect(contents(box.id)).toEqual(untouched);
    expect(await squashd.client.health()).toMatchObject({ status: "ok" });
  });

  it("links would lead out for who writes by a path on the host", async () => {
    const box = await target.create({ id: "planter" });
    await shell(box, plants["a link in the place of each file"]?.(makeVictim(box.id)) ?? "");
    const upper = readdirSync(join(squashd.dataDir, "sandboxes/planter")).find((name) => name.startsWith("upper."));
    writeFileSync(join(squashd.dataDir, "sandboxes/planter", upper ?? "", "data", bundle), "overwritten");
    expect(contents(box.id)).toEqual({ ...untouched, "ca-certificates.crt": "overwritten" });
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

describe.skipIf(lacks("root"))("where trust and placeholders lie, a module that plants", () => {
  const folder = join(squashd.dataDir, "modules");
  const same = (text: string): Record<string, string> =>
    Object.fromEntries(Object.keys(laidIn).map((name) => [name, text]));

  it.each(Object.entries(leadingPlants))(
    "%s leads who writes by a path on the host out of the sandbox, and squashd nowhere",
    async (title, plant) => {
      using victim = new Victim();
      const fill = (root: string): void => plant(root, victim.path);
      expect([layInWithoutCare(fill), victim.contents]).toEqual([3, same("overwritten\n")]);
      victim.reset();

      const name = `110-leading-${Object.keys(leadingPlants).indexOf(title)}`;
      makeHostileModule(folder, name, fill);
      const box = await target.create({ layers: [clientBase, name] });
      await liveThrough(box);
      expect(victim.contents).toEqual(same("untouched\n"));
      // what it leads to is a place inside, with what belongs there
      expect(await shell(box, `head -c 27 ${laidIn["sq-proxy-ca.crt"]}`)).toBe("-----BEGIN CERTIFICATE-----");
      expect((await box.exec("echo $TOKEN")).stdout).toBe(`${TOKEN.placeholder}\n`);
      await box.destroy();
      expect(victim.contents).toEqual(same("untouched\n"));
    },
  );

  it("pipes keeps who writes by a path on the host waiting, and is refused by squashd at once", async () => {
    using victim = new Victim();
    const fill = (root: string): void => pipes(root, victim.path);
    expect(layInWithoutCare(fill)).toBe(0);
    makeHostileModule(folder, "110-pipes", fill);
    const begin = performance.now();
    const creating = target.create({ layers: [clientBase, "110-pipes"] });
    await expect(creating).rejects.toMatchObject({ code: "module_invalid" });
    expect(performance.now() - begin).toBeLessThan(3_000);
  });
});

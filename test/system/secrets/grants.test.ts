import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { Sandbox } from "@squash/sdk";
import { killInit } from "../../support/kill-init.js";
import { lacks } from "../../support/needs.js";
import { shell } from "../../support/secrets/inside.js";
import { header } from "../../support/secrets/server.js";
import { useSecrets } from "../../support/secrets/target.js";
import { usualSecrets, writeSecrets } from "../../support/secrets/usual-secrets.js";

const target = useSecrets();
const { squashd } = target;
const { TOKEN, LOOSE } = usualSecrets;
const bundle = "/etc/ssl/certs/ca-certificates.crt";

beforeEach(() => writeSecrets(squashd.dataDir, usualSecrets));
afterEach(() => squashd.destroyAll());

/** What the server gets as the token of a request, and what the sandbox is told; "" where nothing arrived. */
async function use(box: Sandbox, placeholder = "$TOKEN"): Promise<{ sent: string; said: string }> {
  let said = "";
  const arrivals = await target.server.arrivalsOf(async () => {
    said = await shell(box, `curl -sS -H "Authorization: Bearer ${placeholder}" https://api.example.com/echo`);
  });
  expect(arrivals.length).toBeLessThanOrEqual(1);
  return { sent: arrivals[0] === undefined ? "" : (header(arrivals[0], "authorization") ?? "none"), said: said.trim() };
}

const works = { sent: `Bearer ${TOKEN.value}`, said: `you said: Bearer ${TOKEN.placeholder} and no more` };

describe.skipIf(lacks("root"))("a sandbox without a grant", () => {
  it("has nothing of a secret: no variable, no file, no certificate, no value from the proxy", async () => {
    const all = await target.create();
    const none = await target.create({ secrets: [] });
    const trace = `env | grep -c -e placeholder -e proxy -e CERT -e CA_; ls /etc/profile.d /usr/local/share/ca-certificates 2>/dev/null | grep -c -e squash -e sq-; sha256sum ${bundle}`;
    expect(await shell(all, trace)).toMatch(/^[1-9]\d*\n2\n/);
    expect(await shell(none, trace)).toMatch(/^0\n0\n/);
    const digest = (text: string): string => /[0-9a-f]{64}/.exec(text)?.[0] ?? "";
    expect(digest(await shell(none, trace))).not.toBe(digest(await shell(all, trace)));
    // who knows the placeholder is none the richer
    expect((await use(none, TOKEN.placeholder)).sent).toBe(`Bearer ${TOKEN.placeholder}`);
    expect(await use(all)).toEqual(works);
    // one that comes while it runs is of use only to a root that trusts the proxy, and the answer says so
    const granted = { secrets_granted: ["TOKEN"], secrets_trusted: false };
    expect(await none.setSecrets(["TOKEN"])).toMatchObject(granted);
    expect(await all.setSecrets(["TOKEN"])).toMatchObject({ ...granted, secrets_trusted: true });
  });

  it("for one secret has another one, and no more", async () => {
    const box = await target.create({ secrets: ["TOKEN"] });
    expect(await shell(box, "env | grep placeholder")).toBe(`TOKEN=${TOKEN.placeholder}\n`);
    expect(await use(box)).toEqual(works);
    expect((await use(box, LOOSE.placeholder)).sent).toBe(`Bearer ${LOOSE.placeholder}`);
  });

  it("gets it while it runs, and loses it while it runs", async () => {
    const box = await target.create({ secrets: ["TOKEN"] });
    expect(await use(box)).toEqual(works);
    await box.setSecrets(["LOOSE"]);
    expect((await use(box, TOKEN.placeholder)).sent).not.toContain(TOKEN.value);
    // the variable has gone from new commands; a token of nothing is no proper field
    expect(["Bearer", "none"]).toContain((await use(box)).sent);
    expect((await use(box, "$LOOSE")).sent).toBe(`Bearer ${LOOSE.value}`);
    await box.setSecrets(null);
    expect(await use(box)).toEqual(works);
  });
});

describe.skipIf(lacks("root"))("secrets go on working", () => {
  it("in a fork, after a restore, with another layer, and in none of the snapshots", async () => {
    const box = await target.create({ id: "origin" });
    expect(await use(box)).toEqual(works);
    await box.snapshot({ label: "before" });
    const [fork] = await box.fork({ target_id: "twin" });
    if (fork?.created === undefined) throw new Error("there is no fork");
    expect(await use(squashd.client.sandbox("twin"))).toEqual(works);
    await box.exec("echo more >/root/file");
    await box.restore("before");
    expect(await use(box)).toEqual(works);
    await box.activate("100-extra");
    expect(await use(box)).toEqual(works);
    expect(await shell(box, "sh -lc 'echo $EXTRA $TOKEN'")).toBe(`from profile.d ${TOKEN.placeholder}\n`);
    expect(JSON.stringify(await box.diff({ from: "before" }))).not.toMatch(
      /ca-certificates|squash-secrets|sq-proxy-ca/,
    );
  });

  it("with a restriction to fewer in a fork", async () => {
    const box = await target.create({ id: "origin", secrets: ["TOKEN"] });
    await box.fork({ target_id: "same" });
    await box.fork({ target_id: "none", secrets: [] });
    expect(await use(squashd.client.sandbox("same"))).toEqual(works);
    expect((await use(squashd.client.sandbox("none"), TOKEN.placeholder)).sent).toBe(`Bearer ${TOKEN.placeholder}`);
  });

  it("after a kill -9 of squashd, for processes that were there before as well", async () => {
    const box = await target.create({ id: "user-of-secrets", secrets: ["TOKEN"] });
    await box.exec(
      `(while :; do curl -sS -H "Authorization: Bearer $TOKEN" https://api.example.com/echo >/tmp/said.new 2>&1 && mv /tmp/said.new /tmp/said; sleep 0.1; done) >/dev/null 2>&1 &`,
    );
    await expect.poll(() => shell(box, "cat /tmp/said")).toContain(works.said);
    await squashd.end("SIGKILL");
    await squashd.start();
    await box.exec("rm -f /tmp/said");
    await expect.poll(() => shell(box, "cat /tmp/said")).toContain(works.said);
    await box.exec("kill %1; pkill -f 'while :'; true");
    expect(await shell(box, `curl -sS -H "Authorization: Bearer $TOKEN" https://api.example.com/echo`)).toContain(
      works.said,
    );
    expect((await box.info()).restarts).toBe(0);
  });

  it("when the sandbox is rebuilt", async () => {
    const box = await target.create({ id: "rebuilt", secrets: ["TOKEN"] });
    killInit(await box.info());
    await expect.poll(() => box.info(), { timeout: 10_000 }).toMatchObject({ state: "ready", restarts: 1 });
    expect(await use(box)).toEqual(works);
  });
});

describe.skipIf(lacks("root"))("the file of secrets", () => {
  const changed = { ...usualSecrets, TOKEN: { ...TOKEN, value: "another-real-token-9c1f" } };

  it("is read again when it changes, without a restart", async () => {
    const box = await target.create({ id: "watcher" });
    expect(await use(box)).toEqual(works);
    writeSecrets(squashd.dataDir, changed);
    await expect.poll(async () => (await use(box)).sent).toBe(`Bearer ${changed.TOKEN.value}`);
    const { TOKEN: _, ...without } = usualSecrets;
    writeSecrets(squashd.dataDir, without);
    await expect.poll(async () => (await use(box, TOKEN.placeholder)).sent).toBe(`Bearer ${TOKEN.placeholder}`);
  });

  it("is changed by sq, with the value from its input, and told without values", async () => {
    const box = await target.create({ id: "asker" });
    const running = squashd.startSq("secret", "list", "--json");
    const listed = await running.ended;
    expect(listed).toMatchObject({ status: 0 });
    expect(listed.stdout).toContain(TOKEN.placeholder);
    for (const { value } of Object.values(usualSecrets))
      expect(listed.stdout).not.toContain(JSON.stringify(value).slice(1, -1));
    expect(await use(box)).toEqual(works);
    await expect
      .poll(async () => (await squashd.sq("secret", "list")).stdout)
      .toMatch(/^TOKEN .*\bapi\.example\.com\b/m);
    expect(await squashd.sq("secret", "rm", "TOKEN")).toMatchObject({ status: 0 });
    expect((await use(box, TOKEN.placeholder)).sent).toBe(`Bearer ${TOKEN.placeholder}`);
  });
});

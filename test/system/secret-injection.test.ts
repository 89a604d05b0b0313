import { execFileSync } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import type { JobInfo, Sandbox } from "@squash/sdk";
import { killInit } from "../support/kill-init.js";
import { lacks } from "../support/needs.js";
import { useSquashd } from "../support/own-squashd.js";
import { simulateReboot } from "../support/reboot.js";

const squashd = useSquashd({ env: { SQUASH_UPPER_BACKEND: "loop", SQUASH_UPPER_LIMIT_MB: "32" } });
const { client } = squashd;
const value = "the real value of a test's secret";
const placeholder = "placeholder-of-a-test";
const bundle = "/etc/ssl/certs/ca-certificates.crt";
const certificate = "/usr/local/share/ca-certificates/sq-proxy-ca.crt";
const profile = "/etc/profile.d/squash-secrets.sh";
const laid = [profile, bundle, certificate];

afterEach(async () => {
  await squashd.destroyAll();
  for (const { name } of (await client.secrets()).secrets) await client.removeSecret(name);
});

async function print(sandbox: Sandbox, command: string | string[], env: Record<string, string> = {}): Promise<string> {
  const { exit_code, stdout, stderr } = await sandbox.exec(command, { env });
  expect({ exit_code, stderr }).toEqual({ exit_code: 0, stderr: "" });
  return stdout;
}

const putSecret = (name = "TOKEN", own = placeholder): Promise<unknown> =>
  client.putSecret(name, { value, placeholder: own, allowed_hosts: ["api.example.org"] });

/** Which of the files are there, and whether the bundle ends with the present authority. */
async function trusted(sandbox: Sandbox): Promise<string[]> {
  const found = await print(sandbox, `ls ${laid.join(" ")} 2>/dev/null || true`);
  if (found !== "") {
    const { certificate_pem: pem } = await client.ca();
    expect(await print(sandbox, `cat ${certificate}`)).toBe(pem);
    expect(await print(sandbox, `tail -c ${pem.length} ${bundle}`)).toBe(pem);
  }
  return found.split("\n").filter((line) => line !== "");
}

/** Files of a directory on the host, relative to it. */
const filesIn = (path: string): string[] =>
  execFileSync("find", [path, "-mindepth", "1", "-printf", "%P\\n"], { encoding: "utf8" })
    .split("\n")
    .filter((line) => line !== "");

async function endOf(job: JobInfo): Promise<JobInfo> {
  for await (const next of client.watchJob(job.id)) job = next;
  return job;
}

describe.skipIf(lacks("root"))("a sandbox with a secret", () => {
  it("has placeholder, proxy and certificates in every command, in a login shell or not", async () => {
    await putSecret();
    const sandbox = await client.create({ id: "a" });
    expect(await trusted(sandbox)).toEqual(laid);
    const { gateway } = await sandbox.network();
    const wanted = [
      `TOKEN=${placeholder}`,
      ...["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"].map((name) => `${name}=http://${gateway}:8888`),
      ...["no_proxy", "NO_PROXY"].map((name) => `${name}=localhost,127.0.0.1,::1,${gateway}`),
      ...["NODE_EXTRA_CA_CERTS", "DENO_CERT"].map((name) => `${name}=${certificate}`),
      ...["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "PIP_CERT"].map(
        (name) => `${name}=${bundle}`,
      ),
    ].toSorted();
    const variables = async (command: string | string[], env = {}): Promise<string[]> => {
      const lines = (await print(sandbox, command, env)).split("\n");
      return lines.filter((line) => wanted.some((one) => line.startsWith(`${one.split("=", 1)[0] ?? ""}=`))).toSorted();
    };
    expect(await variables("env")).toEqual(wanted);
    expect(await variables(["env"])).toEqual(wanted);
    expect(await variables(["sh", "-lc", "env"])).toEqual(wanted);
    // of the file alone
    expect(await variables(["env", "-i", "/bin/sh", "-c", `. ${profile}; env`])).toEqual(wanted);
    // what the request says counts
    const own = { TOKEN: "own", http_proxy: "" };
    const changed = wanted.map((line) =>
      line.replace(/^TOKEN=.*/, "TOKEN=own").replace(/^http_proxy=.*/, "http_proxy="),
    );
    expect(await variables("env", own)).toEqual(changed);
    expect(await variables(["sh", "-c", `. ${profile}; env`], own)).toEqual(changed);
    expect((await sandbox.exec("stat -c '%n %a %U:%G' /etc /etc/profile.d /usr/local " + laid.join(" "))).stdout).toBe(
      ["/etc 755", "/etc/profile.d 755", "/usr/local 755", ...laid.map((path) => `${path} 644`)]
        .map((line) => `${line} root:root\n`)
        .join(""),
    );
  });

  it("has nothing of it among its own files, in a difference, in a snapshot, or in a module of one", async () => {
    await putSecret();
    const sandbox = await client.create({ id: "a" });
    await print(sandbox, "echo own >/own");
    const { added, modified, deleted, metadata } = await sandbox.diff();
    const paths = [...added, ...modified, ...deleted, ...metadata].map(({ path }) => path);
    const isOfTrust = (path: string): boolean => /certificate|ssl|profile|squash|usr/.test(path);
    expect(paths.some((path) => path.endsWith("own"))).toBe(true);
    expect(paths.filter(isOfTrust)).toEqual([]);
    expect(filesIn(join(squashd.dataDir, "sandboxes/a/upper.0/data")).filter(isOfTrust)).toEqual([]);
    await sandbox.snapshot({ label: "first" });
    const { totals } = await sandbox.diff();
    expect(totals).toEqual({ added: 0, modified: 0, deleted: 0, metadata: 0 });
    expect(await endOf(await sandbox.promote({ snapshot: "first", module: "900-promoted" }))).toMatchObject({
      state: "done",
    });
    expect(await endOf(await client.startJob({ kind: "from-sandbox", sandbox: "a", name: "901-taken" }))).toMatchObject(
      { state: "done" },
    );
    await client.removeSecret("TOKEN");
    for (const name of ["900-promoted", "901-taken"]) {
      const copy = await client.create({ layers: ["000-base-test", name] });
      expect(await print(copy, "cat /own; env")).toMatch(/^own\n/);
      expect([await trusted(copy), (await print(copy, "env")).includes(placeholder)]).toEqual([[], false]);
      await copy.destroy();
      await client.removeModule(name);
    }
    // a fork that has no secret any more has nothing of it either
    const [fork] = await sandbox.fork({ from: "first", target_id: "b" });
    expect(await trusted(client.sandbox(fork?.id ?? "b"))).toEqual([]);
  });

  it("keeps it through a change of its modules, a restore, a fork, and the death of its init and of squashd", async () => {
    await putSecret();
    const sandbox = await client.create({ id: "a", layers: ["000-base-test"] });
    await sandbox.snapshot({ label: "first" });
    await sandbox.activate("100-extra");
    expect([await trusted(sandbox), await print(sandbox, "cat /opt/extra/file")]).toEqual([
      laid,
      "from the extra layer\n",
    ]);
    await sandbox.deactivate("100-extra");
    expect(await trusted(sandbox)).toEqual(laid);
    await sandbox.restore("first");
    expect(await trusted(sandbox)).toEqual(laid);
    await sandbox.fork({ target_id: "b" });
    expect(await trusted(client.sandbox("b"))).toEqual(laid);
    await squashd.end("SIGKILL");
    await squashd.start();
    expect([await trusted(sandbox), (await sandbox.info()).restarts]).toEqual([laid, 0]);
    killInit(await sandbox.info());
    await expect.poll(async () => (await sandbox.info()).restarts).toBe(1);
    await expect.poll(async () => (await sandbox.info()).state).toBe("ready");
    expect(await trusted(sandbox)).toEqual(laid);
    expect(await print(sandbox, "echo $TOKEN")).toBe(`${placeholder}\n`);
    await simulateReboot(squashd);
    await squashd.start();
    for (const id of ["a", "b"]) {
      await expect.poll(async () => (await client.sandbox(id).info()).state).toBe("ready");
      expect(await trusted(client.sandbox(id))).toEqual(laid);
    }
  });

  it("keeps the authority that it trusts when another one comes, and takes that with its next root", async () => {
    await putSecret();
    const sandbox = await client.create({ id: "a", layers: ["000-base-test"] });
    const { certificate_pem: old } = await client.ca();
    const { certificate_pem: next } = await client.rotateCa();
    expect(next).not.toBe(old);
    expect(await print(sandbox, `cat ${certificate}`)).toBe(old);
    await client.create({ id: "b" });
    expect(await trusted(client.sandbox("b"))).toEqual(laid);
    await sandbox.activate("100-extra");
    expect(await trusted(sandbox)).toEqual(laid);
  });

  it("has the secrets of the moment in its next command, and no file that it lacks", async () => {
    const sandbox = await client.create({ id: "a" });
    expect([await trusted(sandbox), await print(sandbox, "env | grep -c -e PROXY -e CERT -e TOKEN || true")]).toEqual([
      [],
      "0\n",
    ]);
    await putSecret();
    expect(await print(sandbox, "echo $TOKEN; echo ${SSL_CERT_FILE-none}")).toBe(`${placeholder}\nnone\n`);
    await sandbox.setSecrets([]);
    expect(await print(sandbox, "echo ${TOKEN-none}")).toBe("none\n");
    const other = await client.create({ id: "b" });
    expect(await print(other, `echo $TOKEN; grep -c TOKEN ${profile}`)).toBe(`${placeholder}\n1\n`);
    await other.setSecrets([]);
    // the file is that of the root, and commands do not read it
    expect(await print(other, `echo \${TOKEN-none}; grep -c TOKEN ${profile}`)).toBe("none\n1\n");
  });

  it("leads nobody anywhere by links in the places of these files", async () => {
    await putSecret();
    const outside = join(squashd.home, "planted");
    const sandbox = await client.create({ id: "a", layers: ["000-base-test"] });
    await print(
      sandbox,
      `rm -r /etc/ssl /etc/profile.d /usr/local; ln -s ${outside} /etc/ssl; ln -s ../../../../../..${outside} /etc/profile.d; ln -s /proc/1/root/${outside} /usr/local`,
    );
    await sandbox.activate("100-extra");
    await sandbox.snapshot({ label: "first" });
    await sandbox.restore("first");
    await squashd.end("SIGKILL");
    await squashd.start();
    killInit(await sandbox.info());
    await expect.poll(async () => (await sandbox.info()).restarts).toBe(1);
    await expect.poll(async () => (await sandbox.info()).state).toBe("ready");
    expect(await print(sandbox, "readlink /etc/ssl")).toBe(`${outside}\n`);
    expect(existsSync(outside)).toBe(false);
  });

  it("shares one image with others of the same modules, which goes with the last of them", async () => {
    await putSecret();
    await Promise.all(["a", "b", "c"].map((id) => client.create({ id, layers: ["000-base-test"] })));
    await client.create({ id: "d", layers: ["000-base-test"], secrets: [] });
    const folder = join(squashd.dataDir, "trust");
    expect(readdirSync(folder).filter((name) => name.endsWith(".erofs")).length).toBeGreaterThan(0);
    expect(await trusted(client.sandbox("d"))).toEqual([]);
    await squashd.destroyAll();
    await squashd.end();
    await squashd.start();
    expect(readdirSync(folder)).toEqual([]);
  });

  it("is as quick to make as one without, once the image is there", async () => {
    const measure = async (): Promise<number> => {
      const times: number[] = [];
      for (let round = 0; round < 30; round++) {
        const start = performance.now();
        const sandbox = await client.create({ layers: ["000-base-test"] });
        times.push(performance.now() - start);
        await sandbox.destroy();
        await new Promise((done) => setTimeout(done, 20));
      }
      return times.toSorted((a, b) => a - b)[15] ?? 0;
    };
    const without = await measure();
    await putSecret();
    const start = performance.now();
    await (await client.create({ layers: ["000-base-test"] })).destroy();
    const first = performance.now() - start;
    const within = await measure();
    console.log(
      `create: ${without.toFixed(2)} ms without, ${within.toFixed(2)} ms with, the first ${first.toFixed(0)} ms`,
    );
    expect(within).toBeLessThan(without + 20);
  });
});

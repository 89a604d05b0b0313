import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { ExecResult, Sandbox } from "@squash/sdk";
import { ensureCurlModule } from "../../support/curl.js";
import { useInternet, type Box } from "../../support/egress-target.js";
import { places } from "../../support/internet.js";
import { lacks } from "../../support/needs.js";

const target = useInternet();
const { web, otherWeb } = places;
const made: { box?: Box } = {};

beforeAll(async () => {
  ensureCurlModule(`${target.squashd.dataDir}/modules`);
  made.box = await target.box({ layers: ["000-base-test", "300-curl"], allow_net: ["www.example.org"] });
  await sandbox().exec("cat >/tmp/ca.pem", { stdin: target.internet.certificate });
});
afterAll(() => made.box?.[Symbol.asyncDispose]());

function sandbox(): Sandbox {
  if (made.box === undefined) throw new Error("the sandbox was not made");
  return made.box.sandbox;
}

function curl(...args: readonly string[]): Promise<ExecResult> {
  const usual = ["-sS", "--max-time", "10", "--cacert", "/tmp/ca.pem"];
  return sandbox().exec(["/usr/bin/curl", ...usual, ...args], { timeout: 20 });
}

describe.skipIf(lacks("root"))("curl in a sandbox that may reach one name", () => {
  it("gets it by HTTPS, with the certificate verified", async () => {
    const answer = await curl("-w", "%{http_code} %{ssl_verify_result}", "https://www.example.org/");
    expect(answer).toMatchObject({ exit_code: 0, stderr: "" });
    expect(answer.stdout).toBe(`secret hello from ${web} as www.example.org\n200 0`);
    // and it does look at the certificate
    const wrong = await curl("--cacert", "/dev/null", "https://www.example.org/");
    expect(wrong.exit_code).not.toBe(0);
  });

  it("gets it by HTTP, with a body both ways", async () => {
    const answer = await curl("-w", "%{http_code}", "-d", "x".repeat(50_000), "http://www.example.org/path");
    expect(answer).toMatchObject({ exit_code: 0, stdout: `hello from ${web}:80 to www.example.org\n200` });
    expect(target.internet.seen(`http ${web}:80`)).toContain(`http ${web}:80 www.example.org /path`);
  });

  it("gets it on another port", async () => {
    const answer = await curl("http://www.example.org:8080/");
    expect(answer).toMatchObject({ exit_code: 0, stdout: `hello from ${web}:8080 to www.example.org:8080\n` });
  });

  it.each([
    ["another name", ["https://www.other.net/"], 6, /Could not resolve host: www\.other\.net/],
    ["another name by HTTP", ["http://www.other.net/"], 6, /Could not resolve host: www\.other\.net/],
    [
      "another name at a known address",
      ["--resolve", `www.other.net:443:${otherWeb}`, "https://www.other.net/"],
      35,
      /alert access denied/i,
    ],
    ["an address", ["-k", `https://${otherWeb}/`], 35, /unrecognized name/i],
    ["an address on another port", [`http://${otherWeb}:8080/`], 7, /refused|connect/i],
    ["another name through a proxy", ["--proxy", `http://${web}:80`, "-p", "https://www.other.net/"], 56, /405/],
  ] as const)("is told at once that it may not reach %s", async (_, args, code, text) => {
    const begin = performance.now();
    const arrivals = await target.arrivalsOf(async () => {
      const answer = await curl(...args);
      expect(performance.now() - begin).toBeLessThan(2_000);
      expect(answer.stderr).toMatch(text);
      expect(answer.exit_code).toBe(code);
    });
    expect(arrivals).toEqual([]);
  });

  it("is told by HTTP why a name is refused", async () => {
    const answer = await curl(
      "-w",
      "%{http_code}",
      "--resolve",
      `www.other.net:80:${otherWeb}`,
      "http://www.other.net/",
    );
    expect(answer.stdout).toBe("squash: egress to www.other.net is not allowed (default: nothing else)\n403");
  });

  it("reaches the other name as soon as it is allowed", async () => {
    await sandbox().setNetwork({ allow_net: ["www.example.org", "www.other.net"] });
    const answer = await curl("https://www.other.net/");
    expect(answer).toMatchObject({ exit_code: 0, stdout: `secret hello from ${otherWeb} as www.other.net\n` });
  });
});

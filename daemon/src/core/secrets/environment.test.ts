import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { fuzz } from "../egress/testing/fuzz.js";
import { profileScript, secretEnvironment } from "./environment.js";

const trust = { ca: "abc", bundle: "/etc/ssl/certs/ca-certificates.crt" };
const token = { name: "TOKEN", placeholder: "ghp_placeholder" };
const shells = ["/bin/dash", "/bin/bash", "/bin/busybox"].filter((shell) => existsSync(shell));

/** What a shell has of `names` after it has read the script, NUL-separated. */
function read(shell: string, script: string, names: readonly string[], env: Record<string, string> = {}): string[] {
  const print = names.map((name) => `printf '%s\\0' "\${${name}-unset}"`).join("; ");
  const argv = [...(shell.endsWith("busybox") ? ["sh"] : []), "-euc", `${script}\n${print}`];
  return execFileSync(shell, argv, {
    env: { PATH: "/usr/bin:/bin", ...env },
    encoding: "utf8",
    stdio: ["ignore", "pipe", "inherit"],
  })
    .split("\0")
    .slice(0, -1);
}

describe("secretEnvironment()", () => {
  it("has placeholders, the proxy in both cases, and whom each program trusts", () => {
    const proxy = "http://10.200.0.1:8888";
    const direct = "localhost,127.0.0.1,::1,10.200.0.1";
    expect(secretEnvironment({ granted: [token], gateway: "10.200.0.1", trust })).toEqual({
      TOKEN: "ghp_placeholder",
      http_proxy: proxy,
      https_proxy: proxy,
      HTTP_PROXY: proxy,
      HTTPS_PROXY: proxy,
      no_proxy: direct,
      NO_PROXY: direct,
      NODE_EXTRA_CA_CERTS: "/usr/local/share/ca-certificates/sq-proxy-ca.crt",
      DENO_CERT: "/usr/local/share/ca-certificates/sq-proxy-ca.crt",
      SSL_CERT_FILE: trust.bundle,
      REQUESTS_CA_BUNDLE: trust.bundle,
      CURL_CA_BUNDLE: trust.bundle,
      GIT_SSL_CAINFO: trust.bundle,
      PIP_CERT: trust.bundle,
    });
  });

  it("is empty where no secret is granted", () => {
    expect(secretEnvironment({ granted: [], gateway: "10.200.0.1", trust })).toEqual({});
  });

  it("names no file that the root does not have, and no proxy where there is no network", () => {
    expect(secretEnvironment({ granted: [token], gateway: null, trust: null })).toEqual({ TOKEN: "ghp_placeholder" });
  });

  it.each([
    ["variables", Array.from({ length: 200 }, (_, index) => ({ name: `S${index}`, placeholder: "placeholder" }))],
    ["bytes", Array.from({ length: 20 }, (_, index) => ({ name: `S${index}`, placeholder: "p".repeat(4096) }))],
  ])("refuses more %s than a command can be given", (_, granted) => {
    expect(() => secretEnvironment({ granted, gateway: null, trust })).toThrow(/^Cannot give a sandbox \d+ secrets: /);
  });
});

describe("profileScript()", () => {
  it("finds a shell to be tried with", () => {
    expect(shells.length).toBeGreaterThan(0);
  });

  it.each(shells)("gives %s every value as it is, whatever is in it", (shell) => {
    const value = fc.string({
      unit: fc.constantFrom(...Array.from("aZ9'\"\\$`!#&;|<>(){}[]*?~ \n\t=%é")),
      maxLength: 40,
    });
    fuzz(
      fc.property(fc.array(value, { minLength: 1, maxLength: 4 }), (values) => {
        const environment = Object.fromEntries(values.map((each, index) => [`SQ_${index}`, each]));
        expect(read(shell, profileScript(environment), Object.keys(environment))).toEqual(values);
      }),
      40,
    );
  });

  it.each(shells)("leaves what %s was started with alone, also where that is empty", (shell) => {
    const script = profileScript({ FIRST: "of the file", SECOND: "of the file", THIRD: "of the file" });
    const env = { FIRST: "own", SECOND: "" };
    expect(read(shell, script, ["FIRST", "SECOND", "THIRD"], env)).toEqual(["own", "", "of the file"]);
  });
});

import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { CreateOptions, Sandbox } from "@squash/sdk";
import { lacks } from "../../support/needs.js";
import { patience } from "../../support/patience.js";
import { testAuthority } from "../../support/secrets/authority.js";
import { clientBase } from "../../support/secrets/client-base.js";
import { shell } from "../../support/secrets/inside.js";
import {
  ensureRuntimes,
  goClient,
  javaClasses,
  packagedStore,
  runtimeModules,
} from "../../support/secrets/runtimes.js";
import { header } from "../../support/secrets/server.js";
import { useSecrets } from "../../support/secrets/target.js";
import { usualSecrets } from "../../support/secrets/usual-secrets.js";

const skip = lacks("root", "go", "java");
const target = useSecrets(usualSecrets, { modules: (folder) => (skip ? undefined : ensureRuntimes(folder)) });
const { TOKEN } = usualSecrets;
const { go, java, javaStore, javaPkcs12 } = runtimeModules;
const echo = "https://api.example.com/echo";

/** Runs a client that asks for what it is authorized with; what it printed, and what the server got. */
async function ask(box: Sandbox, line: string): Promise<{ said: string; got: string | undefined }> {
  let said = "";
  const arrivals = await target.server.arrivalsOf(async () => (said = await shell(box, line)));
  expect(arrivals.length).toBeLessThanOrEqual(1);
  return { said, got: arrivals[0] && header(arrivals[0], "authorization") };
}

const works = (version: string): unknown => ({
  said: expect.stringMatching(
    new RegExp(`^${version} 200 you said: Bearer ${TOKEN.placeholder} and no more\n+$`),
  ) as string,
  got: `Bearer ${TOKEN.value}`,
});

/** A sandbox in which the server's name leads to nobody, so that who does not leave it to the explicit proxy fails. */
async function createDeaf(options: CreateOptions): Promise<Sandbox> {
  const box = await target.create(options);
  expect(await shell(box, "echo '127.0.0.1 api.example.com' >>/etc/hosts")).toBe("");
  return box;
}

describe.skipIf(skip)("a program of Go", () => {
  const layers = [clientBase, go];
  const made: { box?: Sandbox; deaf?: Sandbox } = {};
  beforeAll(async () => {
    made.box = await target.create({ layers });
    made.deaf = await createDeaf({ layers });
  });
  afterAll(() => target.squashd.destroyAll());
  const client = `${goClient} ${echo} ${TOKEN.placeholder}`;

  it.each([
    ["by HTTP/2", client, "HTTP/2.0"],
    ["by HTTP/1.1", `GODEBUG=http2client=0 ${client}`, "HTTP/1.1"],
  ])("is authorized with the real value through the proxy of its environment: %s", async (_, line, version) => {
    expect(await ask(made.deaf!, line)).toEqual(works(version));
    expect((await ask(made.deaf!, `env -u https_proxy -u HTTPS_PROXY ${line}`)).said).toMatch(/connection refused/);
  });

  it.each([
    ["by HTTP/2", `env -u https_proxy -u HTTPS_PROXY ${client}`, "HTTP/2.0"],
    ["by HTTP/1.1", `env -u https_proxy -u HTTPS_PROXY GODEBUG=http2client=0 ${client}`, "HTTP/1.1"],
    ["with nothing in its environment", `env -i ${client}`, "HTTP/2.0"],
  ])("is authorized with the real value, knowing of no proxy: %s", async (_, line, version) => {
    expect(await ask(made.box!, line)).toEqual(works(version));
  });

  it("does not accept the proxy's certificate by the authority of the server alone", async () => {
    let said = "";
    const arrivals = await target.server.arrivalsOf(async () => {
      // of a folder it reads all files, those of the distribution unless another one is named
      const line = `cat >/tmp/roots; SSL_CERT_FILE=/tmp/roots SSL_CERT_DIR=/nowhere ${client}`;
      ({ stderr: said } = await made.box!.exec(line, { stdin: testAuthority().cert }));
    });
    expect([said, arrivals]).toEqual([expect.stringContaining("certificate signed by unknown authority"), []]);
  });

  it("sends the worthless placeholder where it has no secret", async () => {
    await using bare = await target.create({ layers, secrets: [] });
    expect((await ask(bare, client)).got).toBe(`Bearer ${TOKEN.placeholder}`);
  });
});

describe.skipIf(skip)("a machine of Java", { timeout: 120_000 * patience }, () => {
  const stacks = {
    "with Debian's store": [clientBase, java, javaStore],
    "with no store yet, where ca-certificates-java is not installed": [clientBase, java],
    "with a store in PKCS12": [clientBase, java, javaPkcs12],
  };
  const boxes = new Map<string, Sandbox>();
  beforeAll(async () => {
    for (const [name, layers] of Object.entries(stacks)) boxes.set(name, await target.create({ layers }));
  });
  afterAll(() => target.squashd.destroyAll());

  const client = (way: string, options = ""): string =>
    `java ${options} -cp ${javaClasses} Client ${way} ${echo} ${TOKEN.placeholder}`;
  const ways = [
    ["HttpClient by HTTP/2", "new", "HTTP_2"],
    ["HttpsURLConnection by HTTP/1.1", "old", "HTTP_1_1"],
  ] as const;

  describe.each(Object.keys(stacks))("%s", (name) => {
    it.each(ways)("is authorized with the real value, and never sees it: %s", async (_, way, version) => {
      expect(await ask(boxes.get(name)!, client(way))).toEqual(works(version));
    });
  });

  it("goes through the explicit proxy where its own properties say so", async () => {
    await using deaf = await createDeaf({ layers: stacks["with Debian's store"] });
    const { gateway } = await deaf.network();
    for (const [, way, version] of ways) {
      const proxy = `-Dhttps.proxyHost=${gateway} -Dhttps.proxyPort=8888`;
      expect(await ask(deaf, client(way, proxy))).toEqual(works(version));
      expect((await ask(deaf, client(way))).said).toContain("java.net.ConnectException");
    }
  });

  it("does not accept the proxy's certificate by the store as its package has it", async () => {
    const box = boxes.get("with Debian's store")!;
    const { said, got } = await ask(box, client("old", `-Djavax.net.ssl.trustStore=${packagedStore}`));
    expect([said, got]).toEqual([expect.stringContaining("unable to find valid certification path"), undefined]);
  });

  it("trusts nobody with no store, where nothing is laid in", async () => {
    const layers = stacks["with no store yet, where ca-certificates-java is not installed"];
    await using bare = await target.create({ layers, secrets: [] });
    const { said, got } = await ask(bare, client("old"));
    expect([said, got]).toEqual([expect.stringContaining("trustAnchors parameter must be non-empty"), undefined]);
  });
});

import { readFileSync, writeFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Sandbox } from "@squash/sdk";
import { lacks } from "../../support/needs.js";
import { patience } from "../../support/patience.js";
import { shell } from "../../support/secrets/inside.js";
import { header, real } from "../../support/secrets/server.js";
import { useSecrets } from "../../support/secrets/target.js";
import { usualSecrets } from "../../support/secrets/usual-secrets.js";

const gigabyte = 1_000_000_000;
/** what squashd may grow by while a gigabyte passes */
const maxGrowth = 96 * 1_048_576;

const hosts = ["api.example.com"];
const tokenUrl = "https://api.example.com/oauth/token";
const { clientId, clientSecret, refreshToken } = real.oauth;
const target = useSecrets({
  ...usualSecrets,
  AWS_ACCESS_KEY_ID: {
    placeholder: "AKIAPLACEHOLDER00001",
    value: real.aws.accessKeyId,
    allowed_hosts: hosts,
    locations: ["header", "query"],
    sigv4: { secret_access_key: "AWS_SECRET_ACCESS_KEY" },
  },
  AWS_SECRET_ACCESS_KEY: {
    placeholder: "placeholder/of+the/aws/secret/access/key",
    value: real.aws.secretAccessKey,
    allowed_hosts: [],
  },
  ACCESS: {
    placeholder: "placeholder-of-an-access-token",
    allowed_hosts: hosts,
    oauth2: { token_url: tokenUrl, client_id: clientId, client_secret: clientSecret },
  },
  REFRESHED: {
    placeholder: "placeholder-of-a-refreshed-token",
    allowed_hosts: hosts,
    oauth2: { token_url: tokenUrl, client_id: clientId, client_secret: clientSecret, refresh_token: refreshToken },
  },
});

const made: { box?: Sandbox } = {};
beforeAll(async () => {
  made.box = await target.create();
});
afterAll(() => made.box?.destroy());

function run(line: string, timeoutS = 60): Promise<string> {
  if (made.box === undefined) throw new Error("the sandbox was not made");
  return shell(made.box, line, timeoutS * patience);
}

describe.skipIf(lacks("root"))("a program that has its own way of being authorized", () => {
  it("is git, which clones and pushes over https", async () => {
    const git = "git -c user.name=somebody -c user.email=somebody@example.org";
    const arrivals = await target.server.arrivalsOf(async () => {
      const said =
        await run(`cd /tmp && rm -rf sample && git clone -q --template= "https://user:$PASSWORD@api.example.com/git/sample.git" &&
        cd sample && cat README && echo more >>README && ${git} commit -qam more && git push -q && git fetch && git log --oneline origin/main | wc -l`);
      expect(said).toBe("a sample\n2\n");
    });
    const toGit = arrivals.filter(({ target: path }) => path.startsWith("/git/"));
    const used = toGit.map((each) => header(each, "authorization")).filter((each) => each !== undefined);
    const basic = `Basic ${Buffer.from(`user:${real.password}`).toString("base64")}`;
    expect(new Set(used)).toEqual(new Set([basic]));
    expect(arrivals.map(({ target: path }) => path)).toContain("/git/sample.git/git-receive-pack");
  });

  it("is apt, which updates and installs over https", async () => {
    const said = await run(`echo "machine api.example.com login somebody password $PASSWORD" >/etc/apt/auth.conf
      echo 'deb [trusted=yes] https://api.example.com/apt ./' >/etc/apt/sources.list
      apt-get update >/tmp/log 2>&1 && apt-get install -y sample >>/tmp/log 2>&1 || cat /tmp/log
      sample`);
    expect(said).toBe("sample version 1.5\n");
  });

  it.each(["header", "unsigned", "presigned", "chunks", "chunks-trailer", "unsigned-trailer"])(
    "signs for S3 with what stands for its keys, which arrives signed with the keys: %s",
    async (way) => {
      const [arrival, ...others] = await target.server.arrivalsOf(async () => {
        const url = "'https://api.example.com/s3/bucket/a%20key%2B1?part=1&empty='";
        expect(
          await run(`node /opt/clients/s3.mjs ${way} ${url} "$AWS_ACCESS_KEY_ID" "$AWS_SECRET_ACCESS_KEY"`),
        ).toMatch(/^200 right: /);
      });
      expect(others).toEqual([]);
      expect(arrival?.verdict).toMatch(/^right: /);
      expect(JSON.stringify(arrival)).toContain(real.aws.accessKeyId);
      expect(JSON.stringify(arrival)).not.toContain(real.aws.secretAccessKey);
    },
  );

  it("is curl, which signs for AWS by itself", async () => {
    const signed = '--aws-sigv4 aws:amz:eu-central-1:s3 --user "$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY"';
    expect(await run(`curl -sS ${signed} https://api.example.com/s3/bucket/key`)).toBe("right: signed by header\n");
    expect(await run(`curl -sS ${signed} -d content=1 https://api.example.com/s3/bucket/key`)).toBe(
      "right: signed by header\n",
    );
  });
});

describe.skipIf(lacks("root"))("an access token that squashd gets", () => {
  const ask = (name: string): string =>
    `curl -sS -H "Authorization: Bearer $${name}" https://api.example.com/oauth/resource`;

  it("is asked for once, kept, and asked for again when it is no longer taken", async () => {
    const paths = async (line: string): Promise<string[]> => {
      const arrivals = await target.server.arrivalsOf(async () =>
        expect(await run(line)).toMatch(/^(the resource\n)+$/),
      );
      return arrivals.map((each) => `${each.target} ${each.verdict}`.trim());
    };
    const resource = "/oauth/resource";
    const token = "/oauth/token issued";
    // by now there may be one, since it is got where a request may need it
    expect((await paths(ask("ACCESS"))).at(-1)).toBe(resource);
    expect(await paths(`${ask("ACCESS")}; ${ask("ACCESS")}`)).toEqual([resource, resource]);
    await run("curl -sS https://api.example.com/oauth/revoke");
    expect(await paths(ask("ACCESS"))).toEqual([resource, token, resource]);
    expect((await paths(ask("REFRESHED"))).filter((path) => path === token)).toEqual([token]);
  });

  it("is asked for once by many requests at the same time", async () => {
    await run("curl -sS https://api.example.com/oauth/revoke");
    const many = Array.from({ length: 6 }, () => `${ask("ACCESS")} &`).join(" ");
    const arrivals = await target.server.arrivalsOf(async () => {
      expect((await run(`${many} wait`)).split("\n").toSorted().join("\n").trim()).toBe(
        Array(6).fill("the resource").join("\n"),
      );
    });
    expect(arrivals.filter(({ target: path }) => path === "/oauth/token")).toHaveLength(1);
  });

  it("is not seen, and neither is what it is got with", async () => {
    const said = await run('curl -sS -H "Authorization: Bearer $ACCESS" https://api.example.com/echo');
    expect(said).toBe("you said: Bearer placeholder-of-an-access-token and no more\n");
    expect(await run("env; cat /proc/self/environ /etc/profile.d/*")).not.toMatch(
      /real-client-secret|real-refresh-token|issued-access-token/,
    );
  });
});

/** Peak of a process's resident memory since the last call. */
function peakMemory(pid: number): number {
  const [, kib = "0"] = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8")) ?? [];
  writeFileSync(`/proc/${pid}/clear_refs`, "5");
  return Number(kib) * 1_024;
}

describe.skipIf(lacks("root"))("a gigabyte", () => {
  // of AES-128-CTR with zeros for key and counter, over zeros
  const expected = "e61756bbcbfe5f6f70ffcdf933e41ef55db7ba2923ab85feeb50eef860520f9f";
  const key = "0".repeat(32);

  it(
    "is uploaded unharmed, with substitution in its body on, in constant memory",
    { timeout: 120_000 * patience },
    async () => {
      peakMemory(target.squashd.pid);
      const before = peakMemory(target.squashd.pid);
      const [arrival] = await target.server.arrivalsOf(async () => {
        const content = `head -c ${gigabyte} /dev/zero | openssl enc -aes-128-ctr -K ${key} -iv ${key} -nosalt`;
        expect(
          await run(`${content} | curl -sS --http1.1 -H "X-Key: $LOOSE" -T - https://api.example.com/upload`, 90),
        ).toBe("uploaded\n");
      });
      expect(arrival).toMatchObject({ bodyBytes: gigabyte, bodyHash: expected });
      expect(peakMemory(target.squashd.pid) - before).toBeLessThan(maxGrowth);
    },
  );

  it("is downloaded unharmed, in constant memory", { timeout: 120_000 * patience }, async () => {
    peakMemory(target.squashd.pid);
    const before = peakMemory(target.squashd.pid);
    const said = await run(
      `curl -sS -H "X-Key: $LOOSE" 'https://api.example.com/download?bytes=${gigabyte}' | openssl dgst -sha256`,
      90,
    );
    expect(said).toContain(expected);
    expect(peakMemory(target.squashd.pid) - before).toBeLessThan(maxGrowth);
  });
});

import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Sandbox } from "@squash/sdk";
import { hostState, settledState, type HostState } from "../../support/leaks.js";
import { lacks } from "../../support/needs.js";
import { idle, mustDo, print } from "../../support/s3/bucket-work.js";
import { S3Server } from "../../support/s3/s3-server.js";
import { squashdWithBucket } from "../../support/s3/squashd-with-bucket.js";
import { issue, testAuthority } from "../../support/secrets/authority.js";
import type { TestSquashd } from "../../support/squashd.js";

const names = ["localhost"];

describe.skipIf(lacks("root"))("a bucket that is reached by TLS, with an authority of its own", () => {
  let good: S3Server;
  let expired: S3Server;
  let selfSigned: S3Server;
  let squashd: TestSquashd;
  let box: Sandbox;
  let before: HostState;
  let takes = 0;

  const named = ({ port }: S3Server): string => `https://localhost:${port}`;
  const knowing = { NODE_EXTRA_CA_CERTS: testAuthority().file };

  beforeAll(async () => {
    [good, expired, selfSigned] = await Promise.all([
      S3Server.start({ tls: issue({ names }) }),
      S3Server.start({ tls: issue({ names, expired: true }) }),
      S3Server.start({ tls: issue({ names, selfSigned: true }) }),
    ]);
    squashd = squashdWithBucket(good, { env: { ...knowing, SQUASH_S3_ENDPOINT: named(good) } });
    before = hostState([squashd.mark]);
    await squashd.start();
    box = await squashd.client.create({ id: "box", layers: ["000-base-test"] });
  });

  afterAll(async () => {
    await squashd[Symbol.asyncDispose]();
    for (const server of [good, expired, selfSigned]) await server[Symbol.asyncDispose]();
    expect(await settledState(before, [squashd.mark])).toEqual(before);
  });

  async function keep(text: string): Promise<string> {
    const label = `s${++takes}`;
    await print(box, `echo ${text} >/file`);
    await box.snapshot({ label }, { wait: "durable" });
    return label;
  }

  it("has what is sent, and gives it back, where the authority is named", async () => {
    await keep("kept");
    await mustDo(squashd, { kind: "s3-verify", deep: true });
    const operations = (await good.seen()).map(({ operation }) => operation);
    expect(operations).toEqual(expect.arrayContaining(["PutObject", "GetObject", "ListObjectsV2"]));
  });

  it.each<[string, () => { server: S3Server; env: Record<string, string> }, RegExp]>([
    [
      "of which nobody knows the authority",
      () => ({ server: good, env: { NODE_EXTRA_CA_CERTS: "", SQUASH_S3_ENDPOINT: named(good) } }),
      /UNABLE_TO_VERIFY_LEAF_SIGNATURE.*; name a PEM file of the authority .* in NODE_EXTRA_CA_CERTS$/,
    ],
    [
      "which is its own authority",
      () => ({ server: selfSigned, env: { ...knowing, SQUASH_S3_ENDPOINT: named(selfSigned) } }),
      /DEPTH_ZERO_SELF_SIGNED_CERT.*; name a PEM file of the authority .* in NODE_EXTRA_CA_CERTS$/,
    ],
    [
      "that is another server's",
      () => ({ server: good, env: { ...knowing, SQUASH_S3_ENDPOINT: good.endpoint } }),
      /ERR_TLS_CERT_ALTNAME_INVALID.*127\.0\.0\.1.*; SQUASH_S3_ENDPOINT must have a name that its certificate has$/,
    ],
    [
      "whose time is over",
      () => ({ server: expired, env: { ...knowing, SQUASH_S3_ENDPOINT: named(expired) } }),
      /CERT_HAS_EXPIRED.*; renew its certificate/,
    ],
  ])("is told nothing where it shows a certificate %s", async (_name, of, told) => {
    const { server, env } = of();
    await squashd.end();
    await squashd.start(env);
    box = squashd.client.sandbox("box");
    const seen = await server.seenDuring(async () => {
      await expect(keep("not yet")).rejects.toMatchObject({ code: "s3_unreachable", message: told });
    });
    expect(seen).toEqual([]);
    expect(await squashd.client.bucketQueue()).not.toEqual([]);
  });

  it("has what could not be sent, once it can", async () => {
    await squashd.end();
    await squashd.start({ ...knowing, SQUASH_S3_ENDPOINT: named(good) });
    await idle(squashd);
    const there = (await squashd.client.bucketSnapshots("box")).map(({ label }) => label);
    expect(there).toContain(`s${takes}`);
  });
});

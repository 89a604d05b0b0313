import { createHash } from "node:crypto";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { savedSandbox } from "../testing/saved-sandbox.js";
import { parseManifest } from "./parse-manifest.js";
import { manifestText, maxManifestBytes, type SandboxManifest } from "./sandbox-manifest.js";

const sha256 = (text: string): string => createHash("sha256").update(text).digest("hex");
const modifiedMs = Date.parse("2026-02-03T04:05:06.000Z");
const parse = (body: string | Uint8Array, id = "a"): SandboxManifest =>
  parseManifest(id, { body: typeof body === "string" ? Buffer.from(body) : body, modifiedMs }, sha256);
const invalid = expect.objectContaining({ code: "s3_object_invalid" }) as unknown;

function refused(body: string | Uint8Array, id = "a"): string {
  try {
    parse(body, id);
  } catch (error) {
    expect(error).toEqual(invalid);
    return (error as Error).message;
  }
  throw new Error("it was read");
}

const full: SandboxManifest = {
  id: "a",
  epoch: 7,
  nonce: "0123456789abcdef".repeat(2),
  lease: { machine: "host-1", session: "f".repeat(32), untilMs: 1_700_000_000_000 },
  updated: "2026-01-02T03:04:06.000Z",
  sandbox: savedSandbox({
    owner: "Ünal",
    task: 'say "hello"\n',
    layers: ["100-extra", "000-base"],
    cpu: 0.5,
    network: {
      policy: { allow: ["*.example.org:443", "8.8.8.8:53/udp"], deny: ["bad.example.org"] },
      limits: { downKbit: 1_000, upKbit: null, connectionsPerS: 5 },
    },
    nestedUserns: true,
    secrets: ["TOKEN"],
    retention: { keepLast: 3 },
    forkedFrom: "b@first",
    latestSnapshot: "second",
    head: "second",
    restored: "first",
  }),
};

/** The text of one whose fields are changed, with a digest that fits. */
function forged(change: (fields: Record<string, unknown>, sandbox: Record<string, unknown>) => void): string {
  const { digest: _, ...fields } = JSON.parse(manifestText(full, sha256)) as Record<string, unknown>;
  change(fields, fields["sandbox"] as Record<string, unknown>);
  return `${JSON.stringify({ ...fields, digest: `sha256:${sha256(JSON.stringify(fields))}` }, null, 1)}\n`;
}

describe("a sandbox's manifest in the store", () => {
  it("is read back as it was written", () => {
    expect(parse(manifestText(full, sha256))).toEqual(full);
    const claim = { ...full, lease: null, sandbox: null };
    expect(parse(manifestText(claim, sha256))).toEqual(claim);
  });

  it("is refused when any of its bytes is another one, is missing, or is there besides", () => {
    const bytes = Buffer.from(manifestText(full, sha256));
    for (let at = 0; at < bytes.length; at++) {
      for (const flip of [1, 0x20, 0x80]) {
        const changed = Buffer.from(bytes);
        changed[at] = (changed[at] ?? 0) ^ flip;
        refused(changed);
      }
      refused(Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + 1)]));
      refused(bytes.subarray(0, at));
    }
    refused(Buffer.concat([bytes, Buffer.from(" ")]));
  });

  it.each([
    ["it is another sandbox's", (fields: Record<string, unknown>) => void (fields["id"] = "b"), /a id that is another/],
    ["it is of a later squashd", (fields) => void (fields["schema"] = 2), /later squashd/],
    ["it has a field that nobody knows", (fields) => void (fields["more"] = 1), /digest/],
    ["its epoch is no number", (fields) => void (fields["epoch"] = "7"), /epoch/],
    ["its epoch cannot grow", (fields) => void (fields["epoch"] = Number.MAX_SAFE_INTEGER), /epoch/],
    ["its lease is a text", (fields) => void (fields["lease"] = "me"), /lease that is not an object/],
    ["its lease has no machine", (fields) => void (fields["lease"] = { session: "f".repeat(32) }), /lease\.machine/],
    ["its lease never ends", (fields) => void ((fields["lease"] as { until_ms: number }).until_ms = 1e300), /until_ms/],
    ["a layer leads elsewhere", (_, sandbox) => void (sandbox["layers"] = ["../../etc"]), /layers/],
    ["a layer is there twice", (_, sandbox) => void (sandbox["layers"] = ["a", "a"]), /layers/],
    ["a snapshot leads elsewhere", (_, sandbox) => void (sandbox["latest_snapshot"] = ".."), /latest_snapshot/],
    ["its memory is endless", (_, sandbox) => void (sandbox["memory_mb"] = 1e12), /memory_mb/],
    ["it has no processor", (_, sandbox) => void (sandbox["cpu"] = 0), /cpu/],
    ["a text holds zeroes", (_, sandbox) => void (sandbox["owner"] = "a\0b"), /owner/],
    [
      "its policy is none",
      (_, sandbox) => void ((sandbox["network"] as { allow_net: unknown }).allow_net = ["b ad"]),
      /policy/,
    ],
    [
      "its policy is open by an empty list",
      (_, sandbox) => void ((sandbox["network"] as { allow_net: unknown }).allow_net = []),
      /empty/,
    ],
    ["a secret has no name", (_, sandbox) => void (sandbox["secrets"] = ["9"]), /secrets/],
    ["a time is none", (_, sandbox) => void (sandbox["created"] = "yesterday"), /created/],
    ["a field is missing", (_, sandbox) => Reflect.deleteProperty(sandbox, "network"), /no sandbox\.network/],
    [
      "a field is inherited",
      (_, sandbox) => void (sandbox["retention"] = { ["__proto__"]: { keep_last: 1 } }),
      /keep_last/,
    ],
  ] satisfies [string, Parameters<typeof forged>[0], RegExp][])(
    "is refused when %s, whatever its digest says",
    (_, change, why) => {
      expect(refused(forged(change))).toMatch(why);
    },
  );

  it.each([
    ["nothing", ""],
    ["a number", "5"],
    ["a list", "[]"],
    ["null", "null"],
    ["no UTF-8", new Uint8Array([0xff, 0xfe])],
    ["too much", "x".repeat(maxManifestBytes + 1)],
  ])("is refused when it is %s", (_, body) => {
    refused(body);
  });

  it("is refused when it is anything else", () => {
    const json = fc.oneof(
      fc.json(),
      fc.jsonValue().map((value) => JSON.stringify({ ...full, sandbox: value })),
    );
    fc.assert(
      fc.property(json, (text) => void refused(text)),
      { numRuns: 500 },
    );
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => void refused(bytes)),
      { numRuns: 500 },
    );
  });
});

describe("a manifest of an older daemon", () => {
  const older = {
    id: "a",
    layers: "100-extra, 000-base",
    owner: "me",
    task: "t",
    cpu: 2,
    memory_mb: 512,
    max_lifetime_s: 0,
    allow_net: "example.org,8.8.8.8",
    latest_snapshot: "first",
  };
  const read = (more: object): SandboxManifest => parse(JSON.stringify({ ...older, ...more }));

  it("is read as that of a sandbox that nobody runs", () => {
    const written = new Date(modifiedMs).toISOString();
    expect(read({})).toEqual({
      id: "a",
      epoch: 0,
      nonce: "0".repeat(32),
      lease: null,
      updated: written,
      sandbox: savedSandbox({
        created: written,
        owner: "me",
        task: "t",
        layers: ["100-extra", "000-base"],
        memoryMb: 512,
        pids: null,
        upperLimitBytes: null,
        network: {
          policy: { allow: ["example.org", "8.8.8.8"], deny: [] },
          limits: { downKbit: null, upKbit: null, connectionsPerS: null },
        },
        latestSnapshot: "first",
        head: "first",
      }),
    });
  });

  it.each([null, "", []])("may go anywhere when it says %j, as it did then", (allow) => {
    expect(read({ allow_net: allow }).sandbox?.network.policy.allow).toBeNull();
  });

  it.each([null, ""])("has no snapshot when it says %j", (latest) => {
    expect(read({ latest_snapshot: latest }).sandbox?.latestSnapshot).toBeNull();
  });

  it.each([
    { id: "b" },
    { layers: "../x" },
    { layers: 5 },
    { cpu: "2" },
    { memory_mb: -1 },
    { allow_net: "b ad" },
    { allow_net: { all: true } },
    { latest_snapshot: "../x" },
    { owner: undefined },
  ])("is refused with %j", (more) => {
    refused(JSON.stringify({ ...older, ...more }));
  });
});

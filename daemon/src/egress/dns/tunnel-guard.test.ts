import { createHash } from "node:crypto";
import { describe, expect, it } from "vitest";
import { TunnelGuard, tunnelLimits } from "./tunnel-guard.js";

/** Names as providers make them, each below the wildcard that somebody would allow for it. */
const real: readonly (readonly [name: string, wildcard: string])[] = [
  ["d111111abcdef8.cloudfront.net", "*.cloudfront.net"],
  ["my-bucket.s3.dualstack.eu-west-1.amazonaws.com", "*.amazonaws.com"],
  ["my-bucket-123456789012-us-east-1.s3.amazonaws.com", "*.s3.amazonaws.com"],
  ["elasticbeanstalk-us-east-1-123456789012.s3.amazonaws.com", "*.amazonaws.com"],
  ["cdk-hnb659fds-assets-123456789012-ap-southeast-2.s3.amazonaws.com", "*.s3.amazonaws.com"],
  ["prod-us-west-2-starport-layer-bucket.s3.us-west-2.amazonaws.com", "*.amazonaws.com"],
  ["a0f4b8c0e1d2411e9b1c50a3c8f0b9d7-1234567890.us-east-1.elb.amazonaws.com", "*.elb.amazonaws.com"],
  ["k8s-default-ingress-1a2b3c4d5e-1234567890.eu-central-1.elb.amazonaws.com", "*.amazonaws.com"],
  ["123456789012.dkr.ecr.eu-central-1.amazonaws.com", "*.amazonaws.com"],
  ["7c4a8d09ca3762af61e59520943dc264.r2.cloudflarestorage.com", "*.r2.cloudflarestorage.com"],
  ["productionresultssa12.blob.core.windows.net", "*.blob.core.windows.net"],
  ["github-production-release-asset-2e65be.s3.amazonaws.com", "*.s3.amazonaws.com"],
  ["pipelinesghubeus6.actions.githubusercontent.com", "*.actions.githubusercontent.com"],
  ["objects-origin.githubusercontent.com", "*.githubusercontent.com"],
  ["rr5---sn-4g5ednsl.googlevideo.com", "*.googlevideo.com"],
  ["rr3---sn-uxaxjvhxbt2u-5atl.googlevideo.com", "*.googlevideo.com"],
  ["myproject-default-rtdb.europe-west1.firebasedatabase.app", "*.firebasedatabase.app"],
  ["myservice-123456789012.europe-west1.run.app", "*.run.app"],
  ["64f0c2b8e4b0a10008f2c1d7--mysite.netlify.app", "*.netlify.app"],
  ["my-app-git-feature-long-branch-my-team.vercel.app", "*.vercel.app"],
  ["cas-bridge.xethub.hf.co", "*.hf.co"],
  ["cdn-lfs-us-1.huggingface.co", "*.huggingface.co"],
  ["production.cloudflare.docker.com", "*.docker.com"],
  ["files.pythonhosted.org", "*.pythonhosted.org"],
];

/** Bytes that nobody could guess, the same in each run. */
function secret(size: number, seed: number): Buffer {
  return Buffer.concat(
    Array.from({ length: Math.ceil(size / 32) }, (_, i) => createHash("sha256").update(`${seed}-${i}`).digest()),
  ).subarray(0, size);
}

function base32(bytes: Buffer): string {
  const bits = [...bytes].map((byte) => byte.toString(2).padStart(8, "0")).join("");
  return (bits.match(/.{5}/g) ?? []).map((five) => "abcdefghijklmnopqrstuvwxyz234567"[parseInt(five, 2)]).join("");
}

/** Payloads that tunnels send, by how they write them. */
const payloads: Readonly<Record<string, (seed: number) => string>> = {
  "base32, label of 32": (seed) => base32(secret(20, seed)),
  "base32, label of 48": (seed) => base32(secret(30, seed)),
  "base32, label of 63": (seed) => base32(secret(40, seed)).slice(0, 63),
  "base64url, label of 43": (seed) => secret(32, seed).toString("base64url").replaceAll("-", "_").toLowerCase(),
  "base64url, label of 60": (seed) => secret(45, seed).toString("base64url").toLowerCase(),
  "hex, label of 62": (seed) => secret(31, seed).toString("hex"),
  "hex, four labels of 32": (seed) => [0, 1, 2, 3].map((i) => secret(16, seed * 4 + i).toString("hex")).join("."),
  "short labels, long name": (seed) => (base32(secret(80, seed)).match(/.{16}/g) ?? []).join("."),
};

describe("the shape of a name", () => {
  it.each(real)("lets %s pass below %s", (name, wildcard) => {
    expect(new TunnelGuard(() => 0).refusal(name, `allow ${wildcard}:443`)).toBeNull();
  });

  it.each(Object.entries(payloads))("refuses nearly all of: %s", (_, payload) => {
    const guard = new TunnelGuard(() => 0);
    const names = Array.from({ length: 200 }, (_, seed) => `${payload(seed)}.t.example.org`);
    const refused = names.filter((name) => {
      const why = guard.refusal(name, "allow *.t.example.org:443");
      return why !== null && !why.includes("new names");
    });
    expect(refused.length).toBeGreaterThan(180);
  });

  it.each([
    ["name", "abc-d.".repeat(18), tunnelLimits.name - ".example.org".length],
    ["label", "abc-d-".repeat(10), tunnelLimits.label],
  ])("refuses one character more than the longest %s", (kind, text, longest) => {
    const of = (length: number): string => `${text.slice(0, length - 1)}z.example.org`;
    const guard = new TunnelGuard(() => 0);
    expect(guard.refusal(of(longest), "allow *.example.org")).toBeNull();
    expect(guard.refusal(of(longest + 1), "allow *.example.org")).toBe(`tunnel guard: long ${kind}`);
  });

  it("leaves alone what the operator wrote, and judges all of a name where the rule does not tell", () => {
    const name = "www.q7w3e9r5t1y8u2i4o6p0asdf.example.org";
    expect(new TunnelGuard(() => 0).refusal(name, "allow *.q7w3e9r5t1y8u2i4o6p0asdf.example.org")).toBeNull();
    expect(new TunnelGuard(() => 0).refusal(name, "allow *.example.org")).toBe("tunnel guard: encoded label");
    expect(new TunnelGuard(() => 0).refusal(name, "some rule")).toBe("tunnel guard: encoded label");
  });
});

describe("new names", () => {
  const rule = "allow *.example.org:443";

  it("are limited in any minute, for each wildcard", () => {
    let now = 0;
    const guard = new TunnelGuard(() => now);
    const admitted = (from: number, count: number, suffix = "example.org"): number =>
      Array.from({ length: count }, (_, i) => guard.refusal(`n${from + i}.${suffix}`, `allow *.${suffix}`)).filter(
        (why) => why === null,
      ).length;
    expect(admitted(0, 30)).toBe(30);
    now = 30_000;
    expect(admitted(100, 100)).toBe(30);
    expect(admitted(0, 5, "example.net")).toBe(5);
    now = 59_999;
    expect(admitted(300, 100)).toBe(0);
    now = 60_000;
    expect(admitted(400, 100)).toBe(30);
    now = 90_000;
    expect(admitted(500, 100)).toBe(30);
  });

  it("are not those asked for before", () => {
    const guard = new TunnelGuard(() => 0);
    for (let i = 0; i < tunnelLimits.newNames; i += 1) expect(guard.refusal(`n${i}.example.org`, rule)).toBeNull();
    expect(guard.refusal("n3.example.org", rule)).toBeNull();
    expect(guard.refusal("other.example.org", rule)).toBe("tunnel guard: too many new names");
  });

  it("are those that were forgotten, the ones not asked for the longest", () => {
    let now = 0;
    const guard = new TunnelGuard(() => now);
    const ask = (name: string): string | null => guard.refusal(`${name}.example.org`, rule);
    for (let i = 0; i < tunnelLimits.rememberedNames; i += 1) {
      now += 1_000;
      expect(ask(`n${i}`)).toBeNull();
      if (i > 0) expect(ask("n0")).toBeNull();
    }
    now += 1_000;
    expect(ask("one-more")).toBeNull(); // in the place of n1
    for (let i = 0; ask(`filler${i}`) === null; i += 1); // until new names are too many
    expect(ask("n0")).toBeNull();
    expect(ask("n1")).toBe("tunnel guard: too many new names");
  });
});

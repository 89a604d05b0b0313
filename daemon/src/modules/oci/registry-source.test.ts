import { readFileSync, utimesSync, writeFileSync } from "node:fs";
import type { ServerResponse } from "node:http";
import { join } from "node:path";
import { afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { BlobCache } from "./blob-cache.js";
import { parsePlatform } from "./platform.js";
import { FakeRegistry } from "./testing/fake-registry.js";
import { digestOf, makeImage, makeIndex, type TestImage } from "./testing/images.js";
import { makePulledImage, PullBed } from "./testing/pull-bed.js";

/** in which what was sent is taken; what has not been when a connection breaks is lost */
const arrivalMs = 200;
let image: TestImage;
let bed: PullBed;
let registry: FakeRegistry;

beforeAll(async () => {
  image = await makePulledImage();
});
beforeEach(async () => {
  bed = await new PullBed().start();
  ({ registry } = bed);
});
afterEach(() => bed[Symbol.asyncDispose]());

const pull: PullBed["pull"] = (...of) => bed.pull(...of);
const big = (): { digest: string; bytes: Buffer } => {
  const { digest } = image.layers[1]!;
  return { digest, bytes: image.blobs.get(digest)! };
};

function expectWhole(pulled: Awaited<ReturnType<typeof pull>>): void {
  const found = pulled.layers.map(({ path, size }) => [digestOf(readFileSync(path)), size]);
  expect(found).toEqual(image.layers.map(({ digest, size }) => [digest, size]));
  expect(pulled.config.rootfs.diff_ids).toEqual(image.tars.map(digestOf));
}

describe("An image in a registry", () => {
  it("is had by tag and by digest, and from then on its blobs are here", async () => {
    registry.add(image, "t");
    expectWhole(await pull());
    const before = registry.asked.length;
    expectWhole(await pull(`@${image.manifest.digest}`));
    expect(registry.asked.slice(before)).toEqual([`/v2/team/image/manifests/${image.manifest.digest}`]);
    expect(bed.cacheFiles()).toHaveLength(4);
  });

  it("is the one of the wanted platform, also behind lists of lists", async () => {
    registry.add(image);
    const other = await makeImage([{ members: [{ name: "arm" }] }], { architecture: "arm64" });
    registry.add(other);
    const attestation = { ...image.manifest, digest: digestOf(Buffer.from("x")) };
    const inner = makeIndex([
      ["unknown/unknown", attestation],
      ["linux/arm64/v8", other.manifest],
      ["linux/amd64", image.manifest],
    ]);
    registry.addManifest(inner.bytes);
    registry.addManifest(makeIndex([[null, inner.descriptor]]).bytes, "t");
    expectWhole(await pull());
    const arm = await pull(":t", { platform: parsePlatform("linux/arm64") });
    expect(arm.config.architecture).toBe("arm64");
    await expect(pull(":t", { platform: parsePlatform("linux/riscv64") })).rejects.toMatchObject({
      code: "build_failed",
      message: /not there for linux\/riscv64, but for "linux\/arm64, linux\/amd64"/,
    });
  });

  it("is had with an anonymous token, for this repository's reading only", async () => {
    registry.add(image, "t");
    registry.instead = ({ url = "", headers }, response) => {
      if (url.startsWith("/token")) response.end('{"token":"tok"}');
      else if (headers.authorization === "Bearer tok") return false;
      else {
        const realm = `Bearer realm="http://${registry.host}/token?a=b",service="s",scope="repository:other:push"`;
        response.writeHead(401, { "www-authenticate": realm }).end();
      }
      return true;
    };
    expectWhole(await pull());
    expect(registry.asked.filter((line) => line.startsWith("/token"))).toEqual([
      "/token?a=b&service=s&scope=repository%3Ateam%2Fimage%3Apull",
    ]);
  });

  it("is had with a user name and password, which are shown only when they are asked for, and to nobody else", async () => {
    await using elsewhere = await new FakeRegistry().start();
    registry.add(image, "t");
    elsewhere.add(image);
    const credentials = { username: "u", password: "p:w" };
    registry.instead = ({ url = "", headers }, response) => {
      if (headers.authorization === undefined) response.writeHead(401, { "www-authenticate": 'Basic realm="x"' }).end();
      else if (url.includes("/blobs/")) response.writeHead(307, { location: `http://${elsewhere.host}${url}` }).end();
      else return false;
      return true;
    };
    expectWhole(await pull(":t", { credentials }));
    const basic = `Basic ${Buffer.from("u:p:w").toString("base64")}`;
    expect(registry.asked.slice(0, 2)).toEqual(["", ` ${basic}`].map((more) => `/v2/team/image/manifests/t${more}`));
    expect(elsewhere.asked).toHaveLength(4);
    for (const line of elsewhere.asked) expect(line).not.toContain("Basic");
    await expect(pull(":t")).rejects.toMatchObject({ message: /wants a user name and password/ });
  });

  it("comes whole over connections that break, from where they broke", async () => {
    registry.add(image, "t");
    let breaks = 3;
    const { digest, bytes } = big();
    registry.instead = ({ url = "", headers }, response) => {
      if (!url.endsWith(digest) || breaks-- === 0) return false;
      const from = Number(/\d+/.exec(headers.range ?? "")?.[0] ?? 0);
      response.writeHead(from === 0 ? 200 : 206, {
        "content-length": bytes.length - from,
        ...(from === 0 ? {} : { "content-range": `bytes ${from}-${bytes.length - 1}/${bytes.length}` }),
      });
      response.write(bytes.subarray(from, from + 50_000));
      setTimeout(() => response.destroy(), arrivalMs);
      return true;
    };
    expectWhole(await pull());
    const ranges = registry.asked.filter((line) => line.includes(digest)).map((line) => line.split(" ")[1]);
    expect(ranges).toEqual([undefined, "bytes=50000-", "bytes=100000-", "bytes=150000-"]);
  });

  it("is had from where an earlier attempt ended, also where the server begins anew", async () => {
    registry.add(image, "t");
    const { digest, bytes } = big();
    const cut = (response: ServerResponse): void => {
      response.writeHead(200, { "content-length": bytes.length });
      response.write(bytes.subarray(0, 70_000));
      setTimeout(() => response.destroy(), arrivalMs);
    };
    registry.instead = ({ url = "" }, response) => {
      if (!url.endsWith(digest)) return false;
      if (registry.asked.filter((line) => line.includes(digest)).length === 1) cut(response);
      else response.writeHead(503).end();
      return true;
    };
    await expect(pull()).rejects.toMatchObject({ code: "build_failed", message: /answers 503, also after 5 attempts/ });
    expect(bed.cacheFiles()).toContain(`${digest.slice(7)}.part`);
    registry.instead = ({ url = "" }, response) => {
      if (!url.endsWith(digest)) return false;
      response.writeHead(200).end(bytes); // as if there were no ranges
      return true;
    };
    const before = registry.asked.length;
    expectWhole(await pull());
    expect(registry.asked.slice(before).find((line) => line.includes(digest))).toContain("bytes=70000-");
    expect(bed.cacheFiles()).toHaveLength(4);
  });

  it("is had again where a blob in the cache is damaged", async () => {
    registry.add(image, "t");
    const [, layer] = (await pull()).layers;
    writeFileSync(layer!.path, Buffer.alloc(layer!.size));
    expectWhole(await pull());
  });

  it("ends when its caller gives up, or the time is over", async () => {
    registry.add(image, "t");
    registry.instead = ({ url = "" }) => url.includes("/blobs/"); // and never answers
    await expect(pull(":t", { deadlineMs: 200 })).rejects.toMatchObject({ message: /did not end within 0.2 s/ });
    await expect(pull(":t", { signal: AbortSignal.timeout(200) })).rejects.toMatchObject({ code: "cancelled" });
  });
});

describe("The cache of blobs", () => {
  it("loses what is old, then what was used longest ago, but nothing that may be in use", async () => {
    registry.add(image, "t");
    await pull();
    const cache = new BlobCache(bed.dataDir);
    const [first, second, third, fourth] = bed.cacheFiles().toSorted();
    const hour = 3_600_000;
    const age = (name: string | undefined, ageMs: number): void => {
      const time = (Date.now() - ageMs) / 1_000;
      utimesSync(join(bed.dataDir, "cache/oci/sha256", name!), time, time);
    };
    expect(await cache.prune({ maxBytes: 0, maxAgeMs: 0 })).toEqual([]);
    [first, second, third, fourth].forEach((name, index) => age(name, (5 - index) * hour));
    expect(await cache.prune({ maxAgeMs: 4.5 * hour })).toEqual([first]);
    writeFileSync(join(bed.dataDir, "cache/oci/sha256/x.part"), "");
    age("x.part", 25 * hour);
    expect(await cache.prune()).toEqual(["x.part"]);
    expect((await cache.prune({ maxBytes: 0 })).toSorted()).toEqual([second, third, fourth].toSorted());
    expect(await new BlobCache(join(bed.dataDir, "absent")).prune()).toEqual([]);
  });
});

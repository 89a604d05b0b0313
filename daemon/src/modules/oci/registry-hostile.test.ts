import type { ServerResponse } from "node:http";
import { afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { BlobCache } from "./blob-cache.js";
import { parseReference } from "./reference.js";
import { pullImage } from "./registry-source.js";
import type { FakeRegistry } from "./testing/fake-registry.js";
import { digestOf, makeImage, makeIndex, type TestImage } from "./testing/images.js";
import { makePulledImage, platform, PullBed } from "./testing/pull-bed.js";

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

describe("A registry that is hostile", () => {
  const endless = (response: ServerResponse): void => {
    const chunk = Buffer.alloc(65_536, " ");
    const more = (): void => {
      while (!response.destroyed && response.write(chunk));
      if (!response.destroyed) response.once("drain", more);
    };
    more();
  };

  it.each<[string, RegExp, (kind: string, response: ServerResponse, url: string) => boolean]>([
    [
      "sends other bytes of the right length",
      /has the digest sha256/,
      (kind, response, url) => {
        if (kind !== "blobs" || !url.endsWith(big().digest)) return false;
        response.end(Buffer.alloc(big().bytes.length));
        return true;
      },
    ],
    [
      "sends too few bytes",
      /is cut off .*, also after 5 attempts/,
      (kind, response, url) => {
        if (kind !== "blobs" || !url.endsWith(big().digest)) return false;
        response.writeHead(200).end(big().bytes.subarray(0, 1_000));
        return true;
      },
    ],
    [
      "never ends a blob",
      /is larger than \d+ bytes/,
      (kind, response) => {
        if (kind === "blobs") endless(response);
        return kind === "blobs";
      },
    ],
    [
      "never ends a manifest",
      /its manifest is larger than 4194304 bytes/,
      (kind, response) => {
        if (kind === "manifests") endless(response);
        return kind === "manifests";
      },
    ],
    [
      "sends another part than it was asked for",
      /another part of a layer/,
      (kind, response) => {
        if (kind === "blobs") response.writeHead(206, { "content-range": "bytes 5-9/10" }).end("xxxxx");
        return kind === "blobs";
      },
    ],
    [
      "sends around in circles",
      /sends elsewhere more than 5 times/,
      (_kind, response, url) => {
        response.writeHead(302, { location: url }).end();
        return true;
      },
    ],
    [
      "sends to no web address",
      /by "ftp:", needed is https/,
      (_kind, response) => {
        response.writeHead(302, { location: "ftp://h/x" }).end();
        return true;
      },
    ],
    [
      "sends nowhere",
      /without an address/,
      (_kind, response) => {
        response.writeHead(302, { location: "http://[" }).end();
        return true;
      },
    ],
    [
      "always wants another token",
      /answers 401, it is not there or needs another user name/,
      (kind, response) => {
        if (kind === "") response.end('{"token":"t"}');
        else response.writeHead(401, { "www-authenticate": `Bearer realm="http://${registry.host}/token"` }).end();
        return true;
      },
    ],
    [
      "wants a token of itself for a token",
      /answers 401/,
      (_kind, response) => {
        response.writeHead(401, { "www-authenticate": `Bearer realm="http://${registry.host}/token"` }).end();
        return true;
      },
    ],
    [
      "gives out a token that would split a header",
      /has no token/,
      (kind, response) => {
        if (kind === "") response.end('{"token":"t\\r\\nx: y"}');
        else response.writeHead(401, { "www-authenticate": `Bearer realm="http://${registry.host}/token"` }).end();
        return true;
      },
    ],
    [
      "wants to know who asks in an unknown way",
      /in an unknown way: "Negotiate"/,
      (_kind, response) => {
        response.writeHead(401, { "www-authenticate": "Negotiate" }).end();
        return true;
      },
    ],
    [
      "does not have it",
      /answers 404, it is not there/,
      (_kind, response) => {
        response.writeHead(404).end();
        return true;
      },
    ],
  ])("and %s is given up on", async (_what, message, answer) => {
    registry.add(image, "t");
    registry.instead = ({ url = "" }, response) => {
      const kind = /\/(manifests|blobs)\//.exec(url)?.[1] ?? "";
      return answer(kind, response, url);
    };
    await expect(pull()).rejects.toMatchObject({ code: "build_failed", message });
    expect(registry.asked.length).toBeLessThan(40);
  });

  it.each<[string, RegExp, unknown]>([
    ["no JSON", /its manifest is no JSON/, "{"],
    ["an old kind of manifest", /wrong at "\/schemaVersion"/, { schemaVersion: 1 }],
    ["a list and a manifest at once", /is a list as well/, { schemaVersion: 2, manifests: [], layers: [] }],
    ["nothing", /its manifest is wrong/, null],
    [
      "a digest that is a path",
      /wrong at "\/config\/digest"/,
      {
        schemaVersion: 2,
        layers: [],
        config: { mediaType: "x", size: 1, digest: "sha256:../../../../etc/passwd" },
      },
    ],
    [
      "a negative size",
      /wrong at "\/config\/size"/,
      {
        schemaVersion: 2,
        layers: [],
        config: { mediaType: "x", size: -1, digest: digestOf(Buffer.from("")) },
      },
    ],
    [
      "a program instead of an image",
      /needed is an image of a root file system/,
      {
        schemaVersion: 2,
        layers: [],
        config: { mediaType: "application/x-program", size: 1, digest: digestOf(Buffer.from("")) },
      },
    ],
    [
      "more manifests than any list has",
      /wrong at "\/manifests"/,
      {
        schemaVersion: 2,
        manifests: Array.from({ length: 1_001 }, () => ({
          mediaType: "x",
          size: 1,
          digest: digestOf(Buffer.from("")),
        })),
      },
    ],
  ])("cannot have %s taken for an image", async (_what, message, manifest) => {
    registry.addManifest(Buffer.from(typeof manifest === "string" ? manifest : JSON.stringify(manifest)), "t");
    await expect(pull()).rejects.toMatchObject({ code: "build_failed", message });
  });

  it("cannot lead through lists without end, to other bytes than a list says, or to layers that are too many or too large", async () => {
    registry.add(image);
    let list = makeIndex([["linux/amd64", image.manifest]]);
    for (let depth = 0; depth < 4; depth++) {
      registry.addManifest(list.bytes, "t");
      list = makeIndex([["linux/amd64", list.descriptor]]);
    }
    await expect(pull()).rejects.toMatchObject({ message: /ever more lists/ });
    registry.addManifest(makeIndex([["linux/amd64", image.manifest]]).bytes, "t");
    registry.manifests.set(image.manifest.digest, Buffer.from("{}"));
    await expect(pull()).rejects.toMatchObject({ message: /its manifest has the digest sha256/ });
    registry.add(image, "t");
    await expect(pull(":t", { maxBytes: 1_000 })).rejects.toMatchObject({ message: /at most 1000 are taken/ });
    registry.add(await makeImage([{ members: [{ name: "x" }] }], { diffIds: [], architecture: "amd64" }), "t");
    await expect(pull()).rejects.toMatchObject({ message: /another number of layers/ });
    const foreign = { layerType: "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", architecture: "amd64" };
    registry.add(await makeImage([{ members: [{ name: "x" }] }], foreign), "t");
    await expect(pull()).rejects.toMatchObject({ message: /a layer is of the type/ });
  });

  it("on another machine is asked over TLS only, unless told otherwise", async () => {
    const reference = { ...parseReference("h.invalid/team/image"), registry: "h.invalid:1" };
    await expect(
      pullImage(reference, { platform, cache: new BlobCache(bed.dataDir), delayMs: 1, idleMs: 1_000 }),
    ).rejects.toMatchObject({
      code: "build_failed",
      message: /h\.invalid:1 cannot be asked .*, also after 5 attempts/,
    });
  });
});

import { createHash } from "node:crypto";
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { createServer, type RequestListener, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { download } from "./download.js";

const content = Buffer.from("a root file system ".repeat(10_000));
const sha256Of = (bytes: Buffer): string => createHash("sha256").update(bytes).digest("hex");
const sha256 = sha256Of(content);
let folder: string;
let target: string;
let answer: RequestListener;
let server: Server;
let url: string;

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), "squash-download-"));
  target = join(folder, "file");
  answer = (_request, response) => void response.end(content);
  server = createServer((request, response) => answer(request, response));
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/rootfs.tar`;
});
afterEach(async () => {
  server.closeAllConnections();
  await new Promise((done) => server.close(done));
  rmSync(folder, { recursive: true });
});

describe("download()", () => {
  it("keeps the bytes of the right sha256, for nobody else to read", async () => {
    await download(url, target, { sha256: sha256.toUpperCase() });
    expect(readFileSync(target).equals(content)).toBe(true);
    expect(statSync(target).mode & 0o777).toBe(0o600);
  });

  it("refuses others, and says what it got", async () => {
    const wanted = "0".repeat(64);
    await expect(download(url, target, { sha256: wanted })).rejects.toMatchObject({
      code: "build_failed",
      message: `Cannot download "${url}": its sha256 is ${sha256}, needed is ${wanted}`,
    });
  });

  it.each(["", "abc", "g".repeat(64), "0".repeat(63), `${"0".repeat(64)}\n`])(
    "wants a whole sha256, not %j",
    async (wrong) => {
      await expect(download(url, target, { sha256: wrong })).rejects.toMatchObject({
        code: "invalid_request",
        message: /64 hexadecimal/,
      });
    },
  );

  it.each(["", "rootfs.tar", "/etc/passwd", "file:///etc/passwd", "ftp://h/x", "data:,x"])(
    "wants a web address, not %j",
    async (wrong) => {
      await expect(download(wrong, target, { sha256 })).rejects.toMatchObject({
        code: "invalid_request",
        message: /http or https/,
      });
      expect(existsSync(target)).toBe(false);
    },
  );

  it("keeps the bytes as they were sent, also of a server that calls a packed file an encoding", async () => {
    const packed = gzipSync(content);
    answer = (_request, response) => {
      response.setHeader("content-encoding", "gzip");
      response.end(packed);
    };
    await download(url, target, { sha256: sha256Of(packed) });
    expect(readFileSync(target).equals(packed)).toBe(true);
  });

  it("follows redirects, but not for ever, and not out of the web", async () => {
    answer = (request, response) => {
      if (request.url === "/rootfs.tar") response.writeHead(302, { location: "/moved" }).end();
      else response.end(content);
    };
    await download(url, target, { sha256 });
    answer = (_request, response) => void response.writeHead(301, { location: "/rootfs.tar" }).end();
    await expect(download(url, `${target}2`, { sha256 })).rejects.toMatchObject({ code: "build_failed" });
    answer = (_request, response) => void response.writeHead(302, { location: "file:///etc/passwd" }).end();
    await expect(download(url, `${target}3`, { sha256 })).rejects.toMatchObject({ code: "build_failed" });
  });

  it("sends user name and password to the server they are for, and shows them to nobody", async () => {
    const seen: (string | undefined)[] = [];
    answer = (request, response) => {
      seen.push(request.headers.authorization);
      if (seen.length === 1) response.writeHead(302, { location: url.replace("127.0.0.1", "localhost") }).end();
      else response.writeHead(403).end("no");
    };
    const secret = url.replace("://", "://eve:se%20cret@");
    await expect(download("http://a%zz@127.0.0.1:1/", target, { sha256 })).rejects.toMatchObject({
      message: /ECONNREFUSED/,
    });
    const error: unknown = await download(secret, target, { sha256 }).catch((cause: unknown) => cause);
    expect(seen).toEqual([`Basic ${Buffer.from("eve:se cret").toString("base64")}`, undefined]);
    expect(error).toMatchObject({ code: "build_failed", message: `Cannot download "${url}": the server answers 403` });
  });

  it("does not write over a file", async () => {
    await download(url, target, { sha256 });
    await expect(download(url, target, { sha256 })).rejects.toMatchObject({ message: /EEXIST/ });
  });
});

describe("a server that", () => {
  it.each([404, 500, 204])("answers %d is named with it", async (status) => {
    answer = (_request, response) => void response.writeHead(status).end(status === 204 ? "" : content);
    await expect(download(url, target, { sha256 })).rejects.toMatchObject({
      code: "build_failed",
      message: `Cannot download "${url}": the server answers ${status}`,
    });
  });

  it("sends too much is left, whether it said so or not", async () => {
    for (const isChunked of [false, true]) {
      answer = (_request, response) => {
        if (!isChunked) response.setHeader("content-length", content.length);
        response.write(content.subarray(0, 1_000));
        response.end(content.subarray(1_000));
      };
      await expect(download(url, `${target}${isChunked}`, { sha256, maxBytes: 5_000 })).rejects.toMatchObject({
        code: "build_failed",
        message: `Cannot download "${url}": it is larger than 5000 bytes`,
      });
    }
  });

  it("cuts the connection off is noticed", async () => {
    answer = (_request, response) => {
      response.setHeader("content-length", content.length);
      response.write(content.subarray(0, 1_000), () => response.destroy());
    };
    await expect(download(url, target, { sha256 })).rejects.toMatchObject({ code: "build_failed" });
  });

  it("never answers, or stops in the middle, is given up", async () => {
    answer = () => {};
    await expect(download(url, target, { sha256, idleMs: 300 })).rejects.toMatchObject({
      code: "build_failed",
      message: /Timeout/i,
    });
    answer = (_request, response) => void response.write("some");
    await expect(download(url, `${target}2`, { sha256, idleMs: 300 })).rejects.toMatchObject({
      code: "build_failed",
      message: /Timeout/i,
    });
  });

  it("sends a byte now and then is given up at the deadline", async () => {
    answer = (_request, response) => {
      const drip = setInterval(() => response.write("x"), 20);
      response.on("close", () => clearInterval(drip));
    };
    await expect(download(url, target, { sha256, deadlineMs: 300 })).rejects.toMatchObject({
      code: "build_failed",
      message: /did not end within 0.3 s/,
    });
  });

  it("is not there is named", async () => {
    await expect(download("http://127.0.0.1:1/x", target, { sha256 })).rejects.toMatchObject({
      code: "build_failed",
      message: /Cannot download "http:\/\/127.0.0.1:1\/x": .*ECONNREFUSED/,
    });
  });

  it("hangs is left when the caller gives up", async () => {
    const giving = new AbortController();
    answer = (_request, response) => {
      response.write("some");
      setTimeout(() => giving.abort(), 50);
    };
    await expect(download(url, target, { sha256, signal: giving.signal })).rejects.toMatchObject({ code: "cancelled" });
  });
});

import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { digestOf, type TestImage } from "./images.js";

/** Answers instead of the registry; false leaves it to the registry. */
type Answer = (request: IncomingMessage, response: ServerResponse) => boolean;

/** A registry on loopback that answers as it should, but for what a test wants otherwise. */
export class FakeRegistry implements AsyncDisposable {
  /** by digest or tag */
  readonly manifests = new Map<string, Buffer>();
  readonly blobs = new Map<string, Buffer>();
  /** method, path, and Range and Authorization where there are any */
  readonly asked: string[] = [];
  instead: Answer = () => false;
  readonly #server: Server;

  constructor() {
    this.#server = createServer((request, response) => {
      const { range, authorization } = request.headers;
      this.asked.push([request.url, range, authorization].filter((each) => each !== undefined).join(" "));
      if (!this.instead(request, response)) this.#answer(request, response);
    });
  }

  async start(): Promise<this> {
    await new Promise<void>((done) => this.#server.listen(0, "127.0.0.1", done));
    return this;
  }

  get host(): string {
    return `127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** Takes an image, with a tag or without. */
  add(image: TestImage, tag?: string): void {
    for (const [digest, bytes] of image.blobs) this.blobs.set(digest, bytes);
    this.addManifest(image.blobs.get(image.manifest.digest)!, tag);
  }

  addManifest(bytes: Buffer, tag?: string): void {
    this.manifests.set(digestOf(bytes), bytes);
    if (tag !== undefined) this.manifests.set(tag, bytes);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((done) => this.#server.close(done));
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    const [, kind, name = ""] = /^\/v2\/team\/image\/(manifests|blobs)\/(.+)$/.exec(request.url ?? "") ?? [];
    const bytes = (kind === "blobs" ? this.blobs : this.manifests).get(name);
    if (bytes === undefined) {
      response.writeHead(404).end();
      return;
    }
    const from = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? "")?.[1] ?? 0);
    if (from > 0) response.writeHead(206, { "content-range": `bytes ${from}-${bytes.length - 1}/${bytes.length}` });
    response.end(bytes.subarray(from));
  }
}

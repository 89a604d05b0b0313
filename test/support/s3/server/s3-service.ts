import { randomBytes } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { createServer as createTlsServer } from "node:https";
import type { AddressInfo, Socket } from "node:net";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { Bucket } from "./bucket.js";
import type { Answer } from "./operation.js";
import { routeOf } from "./operations.js";
import { errorDocument, S3Error } from "./s3-error.js";
import { parseRequest, type S3Request } from "./s3-request.js";
import { verify, type S3Access } from "./signature.js";
import { Uploads } from "./uploads.js";

/** What tests may change while it runs. */
export interface Switches {
  /** how far its clock is ahead */
  readonly skewMs: number;
  /** whether the bucket is there; what is in it stays */
  readonly hasBucket: boolean;
  readonly access: readonly S3Access[];
}

/** A request that was answered, or whose client has gone away. */
export interface SeenRequest {
  /** such as "PutObject"; empty where it was refused before that was known */
  readonly operation: string;
  readonly method: string;
  readonly key: string;
  readonly query: Readonly<Record<string, string>>;
  /** all but "authorization" */
  readonly headers: Readonly<Record<string, string | readonly string[] | undefined>>;
  /** 0 where the client went away before an answer was begun */
  readonly status: number;
  /** of the refusal, such as "NoSuchKey"; else empty */
  readonly code: string;
  readonly requestId: string;
  /** of the bodies, as sent */
  readonly bytesIn: number;
  readonly bytesOut: number;
  /** whether the answer was sent to its end */
  readonly isComplete: boolean;
  /** when it came and when it was over, by the true clock */
  readonly startedMs: number;
  readonly endedMs: number;
}

export interface ServiceOptions {
  readonly folder: string;
  readonly bucket: string;
  readonly region: string;
  /** of hosts of the kind "<bucket>.<domain>" */
  readonly domain: string;
  /** 0 for any */
  readonly port: number;
  readonly tls?: { readonly key: string; readonly cert: string };
}

/** What is counted and learnt of a request while it is served. */
interface Account {
  operation: string;
  key: string;
  query: Readonly<Record<string, string>>;
  code: string;
  readonly requestId: string;
  bytesIn: number;
  bytesOut: number;
}

/** S3 on loopback, with one bucket, which trusts nobody. */
export class S3Service {
  readonly seen: SeenRequest[] = [];
  readonly #accounts = new Set<Account>();
  readonly #options: ServiceOptions;
  readonly #bucket: Bucket;
  readonly #uploads: Uploads;
  readonly #server: Server;
  #switches: Switches;

  constructor(options: ServiceOptions, switches: Switches) {
    this.#options = options;
    this.#switches = switches;
    this.#bucket = new Bucket(join(options.folder, options.bucket));
    this.#uploads = new Uploads(this.#bucket);
    const listener = (request: IncomingMessage, response: ServerResponse): void => void this.#serve(request, response);
    this.#server = options.tls ? createTlsServer(options.tls, listener) : createServer(listener);
    this.#server.keepAliveTimeout = 60_000;
    this.#server.on("connection", (socket: Socket) => socket.setNoDelay(true));
  }

  /** Returns the port. */
  async listen(): Promise<number> {
    await new Promise<void>((resolve, reject) => {
      this.#server.once("error", reject);
      this.#server.listen(this.#options.port, "127.0.0.1", resolve);
    });
    return (this.#server.address() as AddressInfo).port;
  }

  /** How many requests are there whose bodies have begun and that are not answered. */
  get receiving(): number {
    return [...this.#accounts].filter(({ bytesIn }) => bytesIn > 0).length;
  }

  set(changes: Partial<Switches>): void {
    this.#switches = { ...this.#switches, ...changes };
  }

  /** The files that an object's content is in, in their order, with their sizes; null where there is no such object. */
  filesOf(key: string): { path: string; size: number }[] | null {
    const object = this.#bucket.find(key);
    return object?.segments.map(({ file, size }) => ({ path: this.#bucket.pathOf(file), size })) ?? null;
  }

  async #serve(http: IncomingMessage, response: ServerResponse): Promise<void> {
    const startedMs = Date.now();
    const requestId = randomBytes(8).toString("hex").toUpperCase();
    const account: Account = { operation: "", key: "", query: {}, code: "", requestId, bytesIn: 0, bytesOut: 0 };
    this.#accounts.add(account);
    const answer = await this.#answer(http, account).catch((error: unknown) => refusal(http, error, account));
    try {
      if (answer !== null) await this.#send(response, answer, account);
    } catch {
      // the client is gone or the object spoilt, which the log tells
      response.destroy();
    } finally {
      this.#accounts.delete(account);
      answer?.settled?.();
      http.resume();
      const { authorization: _, ...headers } = http.headers;
      const status = answer !== null && response.headersSent ? answer.status : 0;
      const isComplete = response.writableFinished;
      const times = { startedMs, endedMs: Date.now() };
      this.seen.push({ ...account, method: http.method ?? "", headers, status, isComplete, ...times });
    }
  }

  async #answer(http: IncomingMessage, account: Account): Promise<Answer> {
    const request = parseRequest(http, this.#options.domain);
    Object.assign(account, { key: request.key, query: request.query });
    const nowMs = Date.now() + this.#switches.skewMs;
    const { access, hasBucket } = this.#switches;
    const verified = await verify(request, { access, region: this.#options.region, nowMs });
    const route = routeOf(request);
    account.operation = route.name;
    if (!hasBucket || request.bucket !== this.#options.bucket) throw noSuchBucket(request);
    if (verified.access.state === "read-only" && !["GET", "HEAD"].includes(request.method))
      throw new S3Error("AccessDenied", "Access Denied");
    const counted = (bytes: number): void => void (account.bytesIn += bytes);
    const incoming = { request, verified, counted };
    const [bucket, uploads] = [this.#bucket, this.#uploads];
    return await route.run({ request, incoming, bucket, uploads, nowMs, since: bucket.tick() });
  }

  async #send(response: ServerResponse, { status, headers = {}, body }: Answer, account: Account): Promise<void> {
    response.sendDate = false;
    response.setHeader("date", new Date(Date.now() + this.#switches.skewMs).toUTCString());
    response.setHeader("x-amz-request-id", account.requestId);
    if (account.operation === "HeadBucket") response.setHeader("x-amz-bucket-region", this.#options.region);
    if (typeof body === "string") {
      response.setHeader("content-type", "application/xml");
      response.setHeader("content-length", Buffer.byteLength(body));
    }
    response.writeHead(status, headers);
    if (body === undefined || typeof body === "string") {
      account.bytesOut += Buffer.byteLength(body ?? "");
      await new Promise<void>((resolve) => {
        response.once("close", resolve);
        response.end(body, resolve);
      });
      return;
    }
    await pipeline(async function* () {
      for await (const piece of body) {
        account.bytesOut += piece.length;
        yield piece;
      }
      const missing = Number(headers["content-length"]) - account.bytesOut;
      if (missing !== 0) throw new Error(`${missing} bytes of the object are not in its files`);
    }, response);
  }
}

function noSuchBucket({ bucket }: S3Request): S3Error {
  return new S3Error("NoSuchBucket", "The specified bucket does not exist", { BucketName: bucket });
}

/** What is answered to what went wrong; null where nobody is there to hear it. */
function refusal(http: IncomingMessage, error: unknown, account: Account): Answer | null {
  if (http.destroyed && !http.complete) return null;
  const known = error instanceof S3Error ? error : null;
  if (known === null) console.error(error);
  account.code = known?.code ?? "InternalError";
  const status = known?.status ?? 500;
  if (http.method === "HEAD" || status === 304) return { status };
  const details = { ...known?.details, RequestId: account.requestId };
  return { status, body: errorDocument(account.code, known?.message ?? String(error), details) };
}

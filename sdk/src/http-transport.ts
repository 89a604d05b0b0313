import http from "node:http";
import https from "node:https";
import { Readable } from "node:stream";

import { parseAddress, type Address } from "./address.js";
import { codeOf, ConnectionError, explainFailure } from "./connection-error.js";
import type { Transport, TransportReply, TransportRequest, TransportStream } from "./transport.js";

/** Largest answer that is read, in bytes. */
const maxReplyBytes = 64 * 1024 * 1024;

/** HTTP/1.1 with kept-alive connections, over TCP, TLS or a unix socket. Throws `SquashError` for an address it cannot read. */
export class HttpTransport implements Transport {
  readonly address: string;
  readonly #address: Address;
  readonly #agent: http.Agent;
  readonly #limitBytes: number;

  constructor(url: string, options: { limitBytes?: number } = {}) {
    this.address = url;
    this.#address = parseAddress(url);
    this.#agent = isSecure(this.#address) ? new https.Agent({ keepAlive: true }) : new http.Agent({ keepAlive: true });
    this.#limitBytes = options.limitBytes ?? maxReplyBytes;
  }

  async send(request: TransportRequest): Promise<TransportReply> {
    request.signal?.throwIfAborted();
    const deadline = new Deadline(request.deadlineMs);
    try {
      return await this.#exchange(request, deadline.signal);
    } catch (cause) {
      const name = `${request.method} ${request.path}`;
      if (request.signal?.aborted === true) throw request.signal.reason;
      if (deadline.signal.aborted) {
        const message = `Cannot ${name} at "${this.address}": no answer within ${request.deadlineMs} ms`;
        throw new ConnectionError(this.address, message, { cause });
      }
      throw cause instanceof ConnectionError ? cause : explainFailure(this.address, name, cause);
    } finally {
      deadline.clear();
    }
  }

  async open(request: TransportRequest): Promise<TransportStream> {
    request.signal?.throwIfAborted();
    const outgoing = this.#open(request);
    const abort = (): void => void outgoing.destroy();
    request.signal?.addEventListener("abort", abort, { once: true });
    outgoing.once("close", () => request.signal?.removeEventListener("abort", abort));
    try {
      const response = await answerTo(outgoing, request.body);
      return { status: response.statusCode ?? 0, contentType: typeOf(response), content: response };
    } catch (cause) {
      if (request.signal?.aborted === true) throw request.signal.reason;
      throw explainFailure(this.address, `${request.method} ${request.path}`, cause);
    }
  }

  close(): void {
    for (const sockets of Object.values(this.#agent.freeSockets)) {
      for (const socket of sockets ?? []) socket.destroy();
    }
  }

  /** A kept connection may be closed by the daemon just as it is used again: a GET, which changes nothing, is then repeated. */
  async #exchange(request: TransportRequest, deadline: AbortSignal): Promise<TransportReply> {
    for (;;) {
      const outgoing = this.#open(request);
      const abort = (): void => void outgoing.destroy();
      request.signal?.addEventListener("abort", abort);
      deadline.addEventListener("abort", abort);
      try {
        return await this.#read(await answerTo(outgoing, request.body));
      } catch (error) {
        const wasStale = outgoing.reusedSocket && codeOf(error) === "ECONNRESET";
        const isOver = request.signal?.aborted === true || deadline.aborted;
        if (!wasStale || isOver || request.method !== "GET") throw error;
      } finally {
        request.signal?.removeEventListener("abort", abort);
        deadline.removeEventListener("abort", abort);
      }
    }
  }

  #open(request: TransportRequest): http.ClientRequest {
    const length =
      typeof request.body === "string" ? { "content-length": String(Buffer.byteLength(request.body)) } : {};
    const options = { method: request.method, headers: { ...request.headers, ...length }, agent: this.#agent };
    const address = this.#address;
    if (address.kind === "unix")
      return http.request({ ...options, path: request.path, socketPath: address.socketPath });
    const { host, port } = address;
    const open = address.isSecure ? https.request : http.request;
    return open({ ...options, host, port, path: address.prefix + request.path });
  }

  async #read(response: http.IncomingMessage): Promise<TransportReply> {
    const chunks: Buffer[] = [];
    let size = 0;
    for await (const chunk of response as AsyncIterable<Buffer>) {
      size += chunk.length;
      // leaving the loop by a throw destroys the response, and with it the connection
      if (size > this.#limitBytes) throw this.#tooLarge();
      chunks.push(chunk);
    }
    return {
      status: response.statusCode ?? 0,
      contentType: typeOf(response),
      text: Buffer.concat(chunks).toString("utf8"),
    };
  }

  #tooLarge(): ConnectionError {
    const message = `Cannot read the answer of "${this.address}": it is larger than ${this.#limitBytes} bytes`;
    return new ConnectionError(this.address, message);
  }
}

/** Sends the body and waits for the head of the answer, which may come before all is sent: then the rest stays unsent. */
function answerTo(outgoing: http.ClientRequest, body: TransportRequest["body"]): Promise<http.IncomingMessage> {
  return new Promise((resolve, reject) => {
    outgoing.on("error", reject); // stays for errors that come after the answer, which the reader of the answer sees itself
    if (body === undefined || typeof body === "string") {
      outgoing.on("response", resolve);
      outgoing.end(body);
      return;
    }
    const source = Readable.from(body, { objectMode: false });
    source.on("error", (error) => {
      outgoing.destroy(error);
      reject(error); // rather than what becomes of the connection
    });
    outgoing.on("close", () => source.destroy());
    outgoing.on("response", (response) => {
      if (!outgoing.writableFinished) {
        source.unpipe(outgoing);
        source.destroy();
        response.on("end", () => outgoing.destroy());
      }
      resolve(response);
    });
    source.pipe(outgoing);
  });
}

function typeOf(response: http.IncomingMessage): string {
  return (response.headers["content-type"] ?? "").split(";", 1)[0]?.trim().toLowerCase() ?? "";
}

function isSecure(address: Address): boolean {
  return address.kind === "tcp" && address.isSecure;
}

/** A timer as a signal, which can be cleared, as that of `AbortSignal.timeout` cannot. */
class Deadline {
  readonly #controller = new AbortController();
  readonly #timer: NodeJS.Timeout | undefined;

  constructor(milliseconds: number | undefined) {
    // above this, setTimeout fires at once
    if (milliseconds === undefined || milliseconds > 2 ** 31 - 1) return;
    this.#timer = setTimeout(() => this.#controller.abort(), milliseconds);
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  clear(): void {
    clearTimeout(this.#timer);
  }
}

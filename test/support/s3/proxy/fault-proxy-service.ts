import {
  Agent,
  createServer,
  request as sendRequest,
  type IncomingMessage,
  type Server,
  type ServerResponse,
} from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { errorDocument } from "../server/s3-error.js";
import { Rules, type Fault } from "./rules.js";

/** One request on its way. */
interface Passage {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  /** to the client */
  readonly socket: Socket;
  readonly fault: Fault | null;
}

/** Ends a passage in silence: whoever waits for it waits until his own patience ends. */
class Stalled extends Error {}

/**
 * Passes HTTP on to a server as it is, signatures included, and does to it what the rules say. It works on the connections' own terms: a reset is
 * a reset of TCP.
 */
export class FaultProxyService {
  readonly rules = new Rules();
  readonly #target: { readonly socketPath: string } | { readonly hostname: string; readonly port: string };
  readonly #agent = new Agent({ keepAlive: true, noDelay: true });
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #at: number | string = 0;

  constructor(target: string) {
    const { protocol, pathname, hostname, port } = new URL(target);
    this.#target = protocol === "unix:" ? { socketPath: pathname } : { hostname, port };
    this.#server = createServer((request, response) => void this.#pass(request, response));
    this.#server.on("connection", (socket: Socket) => {
      socket.setNoDelay(true);
      this.#sockets.add(socket);
      socket.on("close", () => this.#sockets.delete(socket));
    });
    this.#server.requestTimeout = 0;
  }

  /** Listens on a port of loopback, or on a socket at a path; returns what it has got. */
  async listen(at: number | string): Promise<number | string> {
    await new Promise<void>((resolve, reject) => {
      this.#server.once("error", reject);
      if (typeof at === "string") this.#server.listen(at, resolve);
      else this.#server.listen(at, "127.0.0.1", resolve);
    });
    this.#at = typeof at === "string" ? at : (this.#server.address() as AddressInfo).port;
    return this.#at;
  }

  /** Refuses connections from now on, and resets those that are there. Idempotent. */
  async cut(): Promise<void> {
    if (!this.#server.listening) return;
    const closed = new Promise((resolve) => this.#server.close(resolve));
    for (const socket of this.#sockets) socket.resetAndDestroy();
    await closed;
  }

  /** Takes connections again. Idempotent. */
  async mend(): Promise<void> {
    if (!this.#server.listening) await this.listen(this.#at);
  }

  async #pass(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const fault = this.rules.faultFor(request.method ?? "", decoded(request.url ?? ""));
    // it is gone from the request once that has failed
    const { socket } = request;
    const passage = { request, response, socket, fault };
    try {
      if (fault?.kind === "latency") await sleep(fault.ms);
      if (fault?.kind === "answer") await answer(passage, fault);
      else await respond(passage, await this.#ask(passage));
    } catch (error) {
      if (error instanceof Stalled) return;
      // whatever has broken on one side breaks on the other, as it would with nothing between them
      socket.resetAndDestroy();
    }
  }

  /** Sends the request on; returns the answer's head, with its body to come. */
  async #ask({ request, response, fault }: Passage): Promise<IncomingMessage> {
    const [path, method] = [request.url ?? "", request.method ?? ""];
    const onward = sendRequest({ ...this.#target, path, method, headers: request.rawHeaders, agent: this.#agent });
    const answered = new Promise<IncomingMessage>((resolve, reject) => {
      onward.on("response", resolve);
      onward.on("error", reject);
    });
    // it is awaited below, but may fail before
    answered.catch(() => undefined);
    response.on("close", () => {
      if (!response.writableFinished) onward.destroy();
    });
    await sendBody(request, onward, fault);
    return await answered;
  }
}

async function sendBody(
  request: IncomingMessage,
  onward: ReturnType<typeof sendRequest>,
  fault: Fault | null,
): Promise<void> {
  const isStall = fault?.kind === "stall-request";
  const limit = isStall || fault?.kind === "reset-request" ? fault.afterBytes : Infinity;
  let sent = 0;
  for await (const piece of request.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
    const passed = piece.subarray(0, limit - sent);
    sent += passed.length;
    await write(onward, passed);
    if (sent >= limit) break;
  }
  if (sent < limit) {
    onward.end();
    return;
  }
  if (isStall) throw new Stalled();
  onward.socket?.resetAndDestroy();
  throw new Error("reset");
}

async function respond({ socket, response, fault }: Passage, answer: IncomingMessage): Promise<void> {
  if (fault?.kind === "lose-response") {
    await drain(answer);
    throw new Error("lost");
  }
  if (fault?.kind === "stall-response" && fault.afterBytes === undefined) throw new Stalled();
  response.sendDate = false;
  response.writeHead(answer.statusCode ?? 502, answer.statusMessage, answer.rawHeaders);
  response.flushHeaders();
  const ends = fault?.kind === "reset-response" || fault?.kind === "truncate" || fault?.kind === "stall-response";
  const limit = ends ? (fault.afterBytes ?? 0) : Infinity;
  let sent = 0;
  for await (const piece of answer.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
    if (fault?.kind === "corrupt") flip(piece, fault.offset - sent);
    const passed = piece.subarray(0, limit - sent);
    sent += passed.length;
    await write(response, passed);
    if (sent >= limit) break;
  }
  if (sent < limit) {
    response.end();
    return;
  }
  if (fault?.kind === "stall-response") throw new Stalled();
  answer.destroy();
  if (fault?.kind === "truncate") socket.end();
  else throw new Error("reset");
}

async function answer(
  { request, response }: Passage,
  { status, code }: { status: number; code: string },
): Promise<void> {
  await drain(request);
  const body = errorDocument(code, "so the tests want it", { RequestId: "0000000000000000" });
  response.writeHead(status, { "content-type": "application/xml", "content-length": Buffer.byteLength(body) });
  response.end(request.method === "HEAD" ? "" : body);
}

async function drain(message: IncomingMessage): Promise<void> {
  for await (const _ of message);
}

function flip(piece: Buffer, offset: number): void {
  const byte = piece[offset];
  if (byte !== undefined) piece[offset] = ~byte & 255;
}

/** Waits until there is room for more. */
async function write(stream: NodeJS.WritableStream & { destroyed: boolean }, piece: Buffer): Promise<void> {
  if (stream.destroyed) throw new Error("closed");
  if (piece.length === 0 || stream.write(piece)) return;
  await new Promise<void>((resolve, reject) => {
    const settle = (): void => {
      stream.off("drain", settle).off("close", settle).off("error", reject);
      resolve();
    };
    stream.on("drain", settle).on("close", settle).on("error", reject);
  });
}

function decoded(url: string): string {
  try {
    return decodeURIComponent(url);
  } catch {
    return url;
  }
}

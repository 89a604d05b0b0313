import { ConnectionError } from "./connection-error.js";
import { SquashError } from "./errors.js";
import { errorStatus, type ErrorCode } from "./protocol.js";
import type { Transport, TransportReply } from "./transport.js";

/** What every call accepts. */
export interface CallOptions {
  /** gives up on the answer and closes the connection; the call throws the signal's reason */
  signal?: AbortSignal | undefined;
  /** milliseconds until the answer must be complete, in place of the client's `timeoutMs` */
  deadlineMs?: number | undefined;
}

export interface Call extends CallOptions {
  method: "GET" | "POST" | "PUT" | "DELETE";
  path: string;
  /** sent as JSON */
  body?: unknown;
  /** sent as they are, in place of `body` */
  bytes?: Bytes;
}

/** A body of bytes; with its `size`, where that is known, it is not sent in chunks. */
interface Bytes {
  content: AsyncIterable<Uint8Array>;
  size?: number;
}

const refusalLimit = 65_536;

/** Turns calls into requests, and answers into data or errors. Shared by the client and its handles. */
export class Api {
  readonly #transport: Transport;
  readonly #token: string | undefined;

  constructor(transport: Transport, token: string | undefined) {
    // such a token cannot be a header, and Node's own error would be met only by the first request
    if (token !== undefined && !/^[\x21-\x7e]*$/.test(token)) {
      throw new SquashError("invalid_request", "Cannot use the token: it must be printable ASCII without spaces");
    }
    this.#transport = transport;
    this.#token = token === "" ? undefined : token;
  }

  /** The answer as an object. Throws `SquashError` for the daemon's refusal, `ConnectionError` for anything that is not its answer. */
  async object<T extends object>(call: Call): Promise<T> {
    const { value, reply } = await this.#json(call);
    if (typeof value !== "object" || value === null || Array.isArray(value))
      throw this.#stranger(call, reply, "an object");
    return value as T;
  }

  /** The answer as a list. Throws as `object` does. */
  async list<T>(call: Call): Promise<T[]> {
    const { value, reply } = await this.#json(call);
    if (!Array.isArray(value)) throw this.#stranger(call, reply, "a list");
    return value as T[];
  }

  /** The answer as a stream of text; null where it is none, or the transport knows no streams. Throws as `object` does. */
  async stream({ method, path, signal }: Call): Promise<AsyncIterable<Uint8Array> | null> {
    const headers = this.#headers("text/event-stream");
    const reply = await this.#transport.open?.({ method, path, headers, signal });
    return reply?.status === 200 && reply.contentType === "text/event-stream" ? reply.content : null;
  }

  /** The answer as bytes while they come. Throws as `object` does. */
  async bytes(call: Call): Promise<AsyncIterable<Uint8Array>> {
    const { method, path, signal } = call;
    if (this.#transport.open === undefined)
      throw new SquashError("invalid_request", "Cannot read a stream: the transport knows none");
    const headers = this.#headers("*/*");
    const { status, contentType, content } = await this.#transport.open({ method, path, headers, signal });
    if (status === 200) return content;
    const reply = { status, contentType, text: await textOf(content) };
    throw refusalIn(reply) ?? this.#stranger(call, reply, "an error of squashd");
  }

  /** The answer as it is, "" where there is none. Throws as `object` does. */
  async text(call: Call): Promise<string> {
    return (await this.#send(call)).text;
  }

  close(): void {
    this.#transport.close();
  }

  async #json(call: Call): Promise<{ value: unknown; reply: TransportReply }> {
    const reply = await this.#send(call);
    const value = parseJson(reply);
    if (value === undefined) throw this.#stranger(call, reply, "JSON");
    return { value, reply };
  }

  async #send({ method, path, body, bytes, signal, deadlineMs }: Call): Promise<TransportReply> {
    const headers = this.#headers("application/json, text/plain;q=0.9");
    if (body !== undefined) headers["content-type"] = "application/json";
    if (bytes !== undefined) headers["content-type"] = "application/octet-stream";
    if (bytes?.size !== undefined) headers["content-length"] = String(bytes.size);
    const content =
      bytes !== undefined ? { body: bytes.content } : body === undefined ? {} : { body: JSON.stringify(body) };
    const reply = await this.#transport.send({ method, path, headers, signal, deadlineMs, ...content });
    if (reply.status >= 200 && reply.status < 300) return reply;
    throw refusalIn(reply) ?? this.#stranger({ method, path }, reply, "an error of squashd");
  }

  #headers(accept: string): Record<string, string> {
    return { accept, ...(this.#token !== undefined && { authorization: `Bearer ${this.#token}` }) };
  }

  #stranger(call: Call, reply: TransportReply, wanted: string): ConnectionError {
    const found = `status ${reply.status} with ${reply.contentType || "no content type"}`;
    const message = `Cannot ${call.method} ${call.path} at "${this.#transport.address}": the answer, ${found}, is not ${wanted}; is this the address of squashd?`;
    return new ConnectionError(this.#transport.address, message);
  }
}

/** The error that the daemon put into an answer; `undefined` where the answer is not the daemon's. */
function refusalIn(reply: TransportReply): SquashError | undefined {
  const body = parseJson(reply);
  if (typeof body !== "object" || body === null) return undefined;
  const { error, code, details } = body as Record<string, unknown>;
  if (typeof error !== "string" || typeof code !== "string") return undefined;
  const facts = typeof details === "object" && details !== null ? (details as Record<string, unknown>) : {};
  if (Object.hasOwn(errorStatus, code)) return new SquashError(code as ErrorCode, error, { details: facts });
  // the list of codes only grows: a newer daemon may know one that is not here yet
  const nearest = reply.status < 500 ? "invalid_request" : "internal";
  return new SquashError(nearest, error, { details: { ...facts, code } });
}

function parseJson(reply: TransportReply): unknown {
  if (reply.contentType !== "application/json") return undefined;
  try {
    return JSON.parse(reply.text) as unknown;
  } catch {
    return undefined; // the caller reports the answer as not being JSON
  }
}

/** Of a refusal, which is short. */
async function textOf(content: AsyncIterable<Uint8Array>): Promise<string> {
  const decoder = new TextDecoder();
  let text = "";
  for await (const piece of content) {
    text += decoder.decode(piece, { stream: true });
    if (text.length > refusalLimit) break;
  }
  return text;
}

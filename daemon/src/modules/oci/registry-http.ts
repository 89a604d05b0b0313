import { buffer } from "node:stream/consumers";
import { Agent, type Dispatcher } from "undici";
import { imageError, quoted } from "./image-error.js";
import { basicAuthorization, parseChallenge, readToken, tokenUrl, type Credentials } from "./registry-auth.js";
import type { Reference } from "./reference.js";

const maxRedirections = 5;
const maxTokenBytes = 256 * 1024;
const redirections = [301, 302, 303, 307, 308];

export interface RegistryOptions {
  /** whether plain HTTP is allowed with a registry on another machine; @default false */
  readonly insecure?: boolean;
  readonly credentials?: Credentials | null;
  /** without a byte; @default 30 seconds */
  readonly idleMs?: number;
}

/** A failure that may be another one's fault than the image's, and may not come again. */
export class PassingError extends Error {
  override readonly name = "PassingError";
}

/** Asks one registry for one repository; shows passwords and tokens to nobody else. Throws `build_failed`, or `PassingError`. */
export class RegistryHttp implements AsyncDisposable {
  readonly #base: URL;
  readonly #repository: string;
  readonly #credentials: Credentials | null;
  readonly #agent: Agent;
  #authorization: string | null = null;

  constructor(reference: Pick<Reference, "registry" | "repository">, options: RegistryOptions = {}) {
    const { insecure = false, credentials = null, idleMs = 30_000 } = options;
    const scheme = insecure || isLoopback(new URL(`http://${reference.registry}`).hostname) ? "http" : "https";
    this.#base = new URL(`${scheme}://${reference.registry}`);
    this.#repository = reference.repository;
    this.#credentials = credentials;
    this.#agent = new Agent({ headersTimeout: idleMs, bodyTimeout: idleMs, connectTimeout: idleMs });
  }

  /** Answers with a status of 200 or 206, or fails. `path` is below the repository, such as `blobs/sha256:…`. */
  async get(
    path: string,
    headers: Readonly<Record<string, string>>,
    signal: AbortSignal,
  ): Promise<Dispatcher.ResponseData> {
    const url = new URL(`/v2/${this.#repository}/${path}`, this.#base);
    let answer = await this.#follow(url, headers, signal);
    if (answer.statusCode === 401) {
      const header = [answer.headers["www-authenticate"] ?? ""].flat()[0] ?? "";
      await answer.body.dump();
      this.#authorization = await this.#authorize(header, signal);
      answer = await this.#follow(url, headers, signal);
    }
    if (answer.statusCode === 200 || answer.statusCode === 206) return answer;
    await answer.body.dump();
    throw failureOf(answer.statusCode, this.#base.host);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#agent.destroy();
  }

  async #follow(
    start: URL,
    headers: Readonly<Record<string, string>>,
    signal: AbortSignal,
  ): Promise<Dispatcher.ResponseData> {
    let url = start;
    for (let hop = 0; hop <= maxRedirections; hop++) {
      const own = url.origin === this.#base.origin && this.#authorization !== null;
      const authorization = own ? { authorization: this.#authorization ?? "" } : {};
      const answer = await this.#ask(url, { ...headers, ...authorization }, signal);
      if (!redirections.includes(answer.statusCode)) return answer;
      await answer.body.dump();
      const location = [answer.headers.location ?? ""].flat()[0] ?? "";
      if (!URL.canParse(location, url.href)) throw imageError("the registry sends elsewhere, without an address");
      url = new URL(location, url);
      this.#checkScheme(url);
    }
    throw imageError(`the registry sends elsewhere more than ${maxRedirections} times`);
  }

  async #ask(
    url: URL,
    headers: Readonly<Record<string, string>>,
    signal: AbortSignal,
  ): Promise<Dispatcher.ResponseData> {
    try {
      // not fetch: it would unpack what a server calls an encoding, and digests are of what is sent
      const answer = await this.#agent.request({
        origin: url.origin,
        path: `${url.pathname}${url.search}`,
        method: "GET",
        headers,
        signal,
      });
      answer.body.on("error", () => {
        // whoever reads it has it thrown as well; of one that nobody reads to its end it would end the process
      });
      return answer;
    } catch (cause) {
      signal.throwIfAborted();
      throw new PassingError(`${url.host} cannot be asked (${(cause as Error).message})`, { cause });
    }
  }

  async #authorize(header: string, signal: AbortSignal): Promise<string> {
    const challenge = parseChallenge(header);
    if (challenge === null)
      throw imageError(`the registry wants to know who asks in an unknown way: ${quoted(header)}`);
    const credentials = this.#credentials === null ? null : basicAuthorization(this.#credentials);
    if (challenge.scheme === "basic") {
      if (credentials !== null) return credentials;
      throw imageError("the registry wants a user name and password; give a file that has them with --authfile");
    }
    try {
      const url = tokenUrl(challenge, this.#repository);
      this.#checkScheme(url);
      const answer = await this.#ask(url, credentials === null ? {} : { authorization: credentials }, signal);
      if (answer.statusCode !== 200) {
        await answer.body.dump();
        throw failureOf(answer.statusCode, url.host);
      }
      return `Bearer ${readToken(await readBody(answer, maxTokenBytes, "a token"))}`;
    } catch (cause) {
      if (cause instanceof RangeError) throw imageError(cause.message, cause);
      throw cause;
    }
  }

  /** A registry that is asked over TLS must not lead to what anybody on the way can read, or to a service of this machine. */
  #checkScheme({ protocol, host }: URL): void {
    const isAllowed = protocol === "https:" || (protocol === "http:" && this.#base.protocol === "http:");
    if (!isAllowed) throw imageError(`the registry sends to ${quoted(host)} by ${quoted(protocol)}, needed is https`);
  }
}

/** Reads a small answer. Throws `build_failed` for a larger one, `PassingError` for one that is cut off. */
export async function readBody({ body }: Dispatcher.ResponseData, limit: number, what: string): Promise<Buffer> {
  let size = 0;
  try {
    return await buffer(
      (async function* () {
        for await (const chunk of body as AsyncIterable<Buffer>) {
          size += chunk.length;
          if (size > limit) throw imageError(`${what} is larger than ${limit} bytes`);
          yield chunk;
        }
      })(),
    );
  } catch (cause) {
    if (size > limit) throw cause;
    throw new PassingError(`${what} is cut off (${(cause as Error).message})`, { cause });
  }
}

function failureOf(status: number, host: string): Error {
  if (status === 408 || status === 429 || status >= 500) return new PassingError(`${host} answers ${status}`);
  const meaning: Readonly<Record<number, string>> = {
    401: ", it is not there or needs another user name and password (--authfile)",
    403: ", it is not for this user",
    404: ", it is not there",
  };
  return imageError(`${host} answers ${status}${meaning[status] ?? ""}`);
}

function isLoopback(hostname: string): boolean {
  return hostname === "localhost" || hostname === "[::1]" || /^127\.\d+\.\d+\.\d+$/.test(hostname);
}

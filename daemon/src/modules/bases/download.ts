import { createHash } from "node:crypto";
import { open } from "node:fs/promises";
import { SquashError } from "@squash/sdk/errors";

const maxRedirections = 10;

export interface DownloadOptions {
  /** 64 hexadecimal digits */
  readonly sha256: string;
  /** @default 2 GiB */
  readonly maxBytes?: number;
  /** for all of it; @default 30 minutes */
  readonly deadlineMs?: number;
  /** without a byte; @default 30 seconds */
  readonly idleMs?: number;
  readonly signal?: AbortSignal;
}

/** Downloads to a new file at `target`, which is only to be used when this returns. Throws `build_failed`, `invalid_request`, `cancelled`. */
export async function download(url: string, target: string, options: DownloadOptions): Promise<void> {
  const { maxBytes = 2 * 1024 ** 3, deadlineMs = 30 * 60_000, idleMs = 30_000, signal } = options;
  const { plain, headers } = checkUrl(url);
  const shown = plain.href;
  const wanted = options.sha256.toLowerCase();
  if (!/^[0-9a-f]{64}$/.test(wanted))
    throw new SquashError("invalid_request", "Cannot check the download: --sha256 must be 64 hexadecimal digits");
  const deadline = AbortSignal.timeout(deadlineMs);
  // loaded when it is needed: it takes a third as long as all else of squashd's start, and most never download
  const { Agent, interceptors, request } = await import("undici");
  const agent = new Agent({ headersTimeout: idleMs, bodyTimeout: idleMs, connectTimeout: idleMs });
  try {
    // not fetch: it would unpack what a server calls an encoding, and the sha256 is of the file as it is sent
    const { statusCode, body } = await request(plain, {
      dispatcher: agent.compose(interceptors.redirect({ maxRedirections })),
      headers,
      signal: signal === undefined ? deadline : AbortSignal.any([signal, deadline]),
    });
    if (statusCode !== 200) {
      await body.dump();
      throw failure(`the server answers ${statusCode}`);
    }
    const found = await save(body, target, maxBytes);
    if (found !== wanted) throw failure(`its sha256 is ${found}, needed is ${wanted}`);
  } catch (cause) {
    if (cause instanceof SquashError) throw cause;
    if (signal?.aborted === true)
      throw new SquashError("cancelled", `Cannot download "${shown}": cancelled`, { cause });
    if (deadline.aborted) throw failure(`it did not end within ${deadlineMs / 1000} s`, cause);
    throw failure(reasonOf(cause), cause);
  } finally {
    await agent.destroy();
  }

  function failure(what: string, cause?: unknown): SquashError {
    return new SquashError("build_failed", `Cannot download "${shown}": ${what}`, cause === undefined ? {} : { cause });
  }

  async function save(body: AsyncIterable<Uint8Array>, path: string, limit: number): Promise<string> {
    const hash = createHash("sha256");
    let size = 0;
    await using file = await open(path, "wx", 0o600);
    for await (const chunk of body) {
      size += chunk.byteLength;
      if (size > limit) throw failure(`it is larger than ${limit} bytes`);
      hash.update(chunk);
      await file.writeFile(chunk);
    }
    return hash.digest("hex");
  }
}

/** The address as it may be shown, and the user name and password in it as a header. Throws `invalid_request`. */
function checkUrl(url: string): { readonly plain: URL; readonly headers: Readonly<Record<string, string>> } {
  const plain = URL.canParse(url) ? new URL(url) : null;
  if (plain === null || !["http:", "https:"].includes(plain.protocol)) {
    throw new SquashError(
      "invalid_request",
      `Cannot download ${JSON.stringify(url)}: --url must be an http or https address`,
    );
  }
  const login = [plain.username, plain.password].map(unescaped).join(":");
  plain.username = "";
  plain.password = "";
  const headers = login === ":" ? {} : { authorization: `Basic ${Buffer.from(login).toString("base64")}` };
  return { plain, headers };
}

function unescaped(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // a "%" that escapes nothing is one
  }
}

/** The first cause there is, which says more. */
function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error.cause instanceof Error && error.cause.message !== "" ? error.cause.message : error.message;
}

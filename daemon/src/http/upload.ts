import type { IncomingMessage } from "node:http";
import { SquashError } from "@squash/sdk/errors";
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import type { ModuleUpload } from "../core/service.js";
import { whenGone } from "./gone.js";

/** without a byte, and for all of it */
const uploadMs = { idle: 30_000, total: 60 * 60_000 };

export interface UploadQuery {
  readonly sha256?: string;
  readonly replace?: "true" | "false";
  readonly requires?: string;
  readonly conflicts?: string;
}

/** Adds routes whose bodies are bytes that are read as they come, without the limit of others. */
export function uploadScope(app: FastifyInstance, routes: (scope: FastifyInstance) => void): void {
  void app.register((scope, _, done) => {
    scope.addContentTypeParser("application/octet-stream", (_request, body, parsed) => parsed(null, body));
    routes(scope);
    done();
  });
}

/** Whether a request's body is read by its handler, which then sees to the time that it takes. */
export function isUpload(request: FastifyRequest): boolean {
  return /^application\/octet-stream *(;|$)/i.test(request.headers["content-type"] ?? "");
}

/** What is sent with a request of an upload scope. Throws `invalid_request` without a digest, or with two that differ. */
export function readUpload(request: FastifyRequest<{ Querystring: UploadQuery }>, reply: FastifyReply): ModuleUpload {
  const { query, raw } = request;
  limitRest(raw, reply);
  if (!isUpload(request) || request.body === undefined)
    throw new SquashError(
      "unsupported_media_type",
      "Cannot read the body: its Content-Type must be application/octet-stream",
    );
  const sha256 = digestOf(request.headers["content-digest"], query.sha256);
  return {
    body: inTime(raw),
    sha256,
    replace: query.replace === "true",
    ...(query.requires !== undefined && { requires: listOf(query.requires) }),
    ...(query.conflicts !== undefined && { conflicts: listOf(query.conflicts) }),
    signal: whenGone(reply),
  };
}

/** As hexadecimal digits. Source: RFC 9530 §2 for the header. */
export function digestOf(header: string | string[] | undefined, query: string | undefined): string {
  const given: string[] = query === undefined ? [] : [query.toLowerCase()];
  if (header !== undefined) {
    const [, value] = /(?:^|,)\s*sha-256=:([A-Za-z0-9+/=]+):/.exec(String(header)) ?? [];
    given.push(Buffer.from(value ?? "", "base64").toString("hex"));
  }
  if (given.length === 0)
    throw new SquashError(
      "invalid_request",
      "Cannot take the upload: it needs ?sha256=HEX, or Content-Digest: sha-256=:BASE64:",
    );
  const [sha256 = "", other = sha256] = given;
  if (/^[0-9a-f]{64}$/.test(sha256) && sha256 === other) return sha256;
  throw new SquashError(
    "invalid_request",
    "Cannot take the upload: its digest is no sha-256, or there are two that differ",
  );
}

/** A sender that stands still, or trickles for ever, is hung up on. The time that its reader takes does not count. */
async function* inTime(request: IncomingMessage): AsyncGenerator<Uint8Array> {
  const hangUp = (): void => void request.destroy(new Error("it did not arrive in time"));
  const total = setTimeout(hangUp, uploadMs.total);
  let idle = setTimeout(hangUp, uploadMs.idle);
  try {
    // whoever stops reading still wants to answer, for which the connection has to stay
    for await (const chunk of request.iterator({ destroyOnReturn: false }) as AsyncIterable<Uint8Array>) {
      clearTimeout(idle);
      yield chunk;
      idle = setTimeout(hangUp, uploadMs.idle);
    }
  } finally {
    clearTimeout(idle);
    clearTimeout(total);
  }
}

/** An answer that comes before all was read leaves a rest, which is thrown away, but not for ever. */
function limitRest(request: IncomingMessage, reply: FastifyReply): void {
  reply.raw.once("finish", () => {
    if (request.complete) return;
    request.resume();
    const rest = setTimeout(() => request.destroy(), uploadMs.idle);
    request.once("close", () => clearTimeout(rest));
  });
}

function listOf(text: string): string[] {
  return text
    .split(",")
    .map((name) => name.trim())
    .filter((name) => name !== "");
}

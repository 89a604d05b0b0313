import { Readable } from "node:stream";
import { Type, type Static } from "@sinclair/typebox";
import { SquashError } from "@squash/sdk/errors";
import type { FastifyInstance } from "fastify";
import type { DiffService } from "../../core/service.js";
import { checkId } from "../../core/validate.js";
import { diffAnswer, diffFileAnswer, diffQuery } from "../diff-schemas.js";
import { whenGone } from "../gone.js";
import { replies } from "../replies.js";
import { idParams } from "../schemas.js";

const entries = { usual: 10_000, max: 100_000 };
/** as long as a URL may be, more or less; native/src/host_capture.c takes more */
const pathBytes = 16_384;

type Query = Static<typeof diffQuery>;

/** What differs between two states of files. */
export function diffRoutes(app: FastifyInstance, diffs: DiffService): void {
  app.get<{ Params: { id: string }; Querystring: Query }>(
    "/sandboxes/:id/diff",
    {
      exposeHeadRoute: false, // it would compare everything for nothing
      schema: {
        tags: ["snapshots"],
        operationId: "diff",
        summary: "What differs between two of: snapshots, the present, the modules alone, and those of other sandboxes",
        params: idParams,
        querystring: diffQuery,
        response: replies(
          200,
          Type.Union([Type.Ref(diffAnswer.$id ?? ""), Type.Ref(diffFileAnswer.$id ?? "")]),
          "invalid_request",
          "sandbox_not_found",
          "sandbox_not_ready",
          "snapshot_not_found",
          "snapshot_failed",
          "snapshot_damaged",
          "path_not_found",
          "diff_failed",
          "diff_limit",
        ),
      },
    },
    async (request, reply) => {
      const { params, query } = request;
      checkId(params.id);
      const { from, to } = query;
      const path = pathOf(query);
      const signal = whenGone(reply);
      if (query.format === "tar") {
        if (path !== null) throw invalid("path cannot be said beside format=tar");
        const tar = await diffs.tar(params.id, { from, to }, signal);
        return reply.type("application/x-tar").send(Readable.from(tar, { objectMode: false }));
      }
      if (path !== null) return diffs.file(params.id, { from, to, path }, signal);
      return diffs.list(params.id, { from, to, limit: limitOf(query) }, signal);
    },
  );
}

function limitOf({ limit }: Query): number {
  const count = limit === undefined ? entries.usual : Number(limit);
  if (count > entries.max) throw invalid(`limit must be at most ${entries.max}`);
  return count;
}

/** Without "/" at its ends; null for none. */
function pathOf({ path, path_base64 }: Query): Buffer | null {
  if (path !== undefined && path_base64 !== undefined) throw invalid("path and path_base64 are the same");
  if (path === undefined && path_base64 === undefined) return null;
  const bytes = path === undefined ? Buffer.from(path_base64 ?? "", "base64") : Buffer.from(path);
  const names = bytes
    .toString("latin1")
    .split("/")
    .filter((name) => name !== "" && name !== ".");
  if (names.length === 0 || names.includes("..") || bytes.includes(0) || bytes.length > pathBytes)
    throw invalid('path must name something in the sandbox, without ".." and NUL');
  return Buffer.from(names.join("/"), "latin1");
}

function invalid(reason: string): SquashError {
  return new SquashError("invalid_request", `Cannot compare: ${reason}`);
}

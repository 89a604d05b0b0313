import { Type } from "@sinclair/typebox";
import type { JobRequest } from "@squash/sdk/protocol";
import type { FastifyInstance } from "fastify";
import type { JobService } from "../../core/service.js";
import { streamState } from "../event-stream.js";
import { jobBody, jobInfo, jobParams, tarQuery } from "../job-schemas.js";
import { replies } from "../replies.js";
import { readUpload, uploadScope, type UploadQuery } from "../upload.js";

interface ById {
  Params: { id: string };
}

const tags = ["jobs"];

/** Work in the background: what makes and converts modules. */
export function jobRoutes(app: FastifyInstance, jobs: JobService): void {
  const info = Type.Ref(jobInfo.$id ?? "");
  const refusals = ["invalid_request", "module_exists", "job_limit", "shutting_down"] as const;

  app.get(
    "/jobs",
    {
      schema: {
        tags,
        operationId: "listJobs",
        summary: "Jobs, newest first",
        response: replies(200, Type.Array(info)),
      },
    },
    () => jobs.list(),
  );

  app.post<{ Body: JobRequest }>(
    "/jobs",
    {
      schema: {
        tags,
        operationId: "startJob",
        summary: "Begins a job; answers at once",
        body: Type.Ref(jobBody.$id ?? ""),
        response: replies(202, info, ...refusals),
      },
    },
    async (request, reply) => reply.code(202).send(await jobs.start(request.body)),
  );

  uploadScope(app, (scope) => {
    scope.post<{ Querystring: UploadQuery & { name: string } }>(
      "/jobs/from-tar",
      {
        schema: {
          tags,
          operationId: "startJobFromTar",
          summary: "Takes a tar file, plain or packed by gzip, xz or zstd, and begins to make a module of it",
          description: "Needs its digest: ?sha256=HEX, or Content-Digest: sha-256=:BASE64: (RFC 9530).",
          querystring: tarQuery,
          consumes: ["application/octet-stream"],
          response: replies(202, info, ...refusals, "digest_mismatch", "body_too_large", "unsupported_media_type"),
        },
      },
      async (request, reply) => {
        const started = await jobs.startFromTar(request.query.name, readUpload(request, reply));
        return reply.code(202).send(started);
      },
    );
  });

  app.get<ById>(
    "/jobs/:id",
    {
      schema: {
        tags,
        operationId: "getJob",
        summary: "One job",
        params: jobParams,
        response: replies(200, info, "job_not_found"),
      },
    },
    (request) => jobs.get(request.params.id),
  );

  app.get<ById>(
    "/jobs/:id/events",
    {
      schema: {
        tags,
        operationId: "watchJob",
        summary: "Server-sent events: the job now, at each change (progress), and at its end (done, failed, cancelled)",
        params: jobParams,
        response: {
          ...replies(200, Type.Null(), "job_not_found"),
          "200": {
            description: "events whose data is a Job",
            content: { "text/event-stream": { schema: Type.String() } },
          },
        },
      },
      exposeHeadRoute: false,
    },
    (request, reply) => {
      const { id } = request.params;
      let last = jobs.get(id);
      streamState(reply, {
        watch: (changed) => jobs.watch(id, changed),
        read: () => {
          last = jobs.list().find((job) => job.id === id) ?? last;
          const isOpen = last.state === "queued" || last.state === "running";
          return { name: isOpen ? "progress" : last.state, data: last, isLast: !isOpen };
        },
      });
    },
  );

  app.delete<ById>(
    "/jobs/:id",
    {
      schema: {
        tags,
        operationId: "removeJob",
        summary: "Cancels a job, and answers when it has ended; takes one that is over off the list",
        params: jobParams,
        response: replies(204, Type.Null({ description: "cancelled or taken off" }), "job_not_found"),
      },
    },
    async (request, reply) => {
      await jobs.remove(request.params.id);
      return reply.code(204).send();
    },
  );
}

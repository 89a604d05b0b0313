import { Type } from "@sinclair/typebox";
import type { PromoteRequest, RetentionRequest, SnapshotChange } from "@squash/sdk/protocol";
import type { FastifyInstance } from "fastify";
import type { JobService, TimeService } from "../../core/service.js";
import { checkId } from "../../core/validate.js";
import { jobInfo } from "../job-schemas.js";
import { replies } from "../replies.js";
import { idParams } from "../schemas.js";
import {
  historyEntry,
  labelParams,
  promoteBody,
  retentionAnswer,
  retentionBody,
  snapshotChange,
} from "../time-schemas.js";

interface ById {
  Params: { id: string };
}

/** What becomes of snapshots: which of them stay, and which become modules. */
export function retentionRoutes(app: FastifyInstance, { snapshots, retention }: TimeService, jobs: JobService): void {
  const tags = ["snapshots"];

  app.put<ById & { Body: RetentionRequest }>(
    "/sandboxes/:id/retention",
    {
      schema: {
        tags,
        operationId: "setRetention",
        summary: "Says which snapshots stay; those that do not go at once",
        params: idParams,
        body: Type.Ref(retentionBody.$id ?? ""),
        response: replies(
          200,
          Type.Ref(retentionAnswer.$id ?? ""),
          "invalid_request",
          "sandbox_not_found",
          "sandbox_not_ready",
        ),
      },
    },
    (request) => {
      checkId(request.params.id);
      return retention.set(request.params.id, request.body);
    },
  );

  app.put<{ Params: { id: string; label: string }; Body: SnapshotChange }>(
    "/sandboxes/:id/snapshots/:label",
    {
      schema: {
        tags,
        operationId: "changeSnapshot",
        summary: "Pins a snapshot, so that it stays whatever the retention says, or the contrary",
        params: labelParams,
        body: Type.Ref(snapshotChange.$id ?? ""),
        response: replies(
          200,
          Type.Ref(historyEntry.$id ?? ""),
          "invalid_request",
          "sandbox_not_found",
          "snapshot_not_found",
        ),
      },
    },
    (request) => {
      const { id, label } = request.params;
      checkId(id);
      return snapshots.pin(id, label, request.body.pinned);
    },
  );

  app.post<ById & { Body: PromoteRequest }>(
    "/sandboxes/:id/promote",
    {
      schema: {
        tags,
        operationId: "promote",
        summary: "Begins a job that makes a module of a snapshot; it stands on the modules that the snapshot stands on",
        params: idParams,
        body: Type.Ref(promoteBody.$id ?? ""),
        response: replies(
          202,
          Type.Ref(jobInfo.$id ?? ""),
          "invalid_request",
          "sandbox_not_found",
          "snapshot_not_found",
          "module_not_found",
          "module_invalid",
          "module_exists",
          "job_limit",
          "shutting_down",
        ),
      },
    },
    async (request, reply) => {
      const { id } = request.params;
      checkId(id);
      const { module: name, replace = false, ...rest } = request.body;
      const started = await jobs.start({ ...rest, kind: "promote", sandbox: id, name, replace });
      return reply.code(202).send(started);
    },
  );
}

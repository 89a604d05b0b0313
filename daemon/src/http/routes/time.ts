import { Type, type TObject, type TRef } from "@sinclair/typebox";
import type {
  CollectRequest,
  ErrorCode,
  ForkRequest,
  ModuleRequest,
  RestoreRequest,
  SnapshotRequest,
} from "@squash/sdk/protocol";
import { SquashError } from "@squash/sdk/errors";
import type { FastifyInstance, FastifyRequest, RouteShorthandOptions } from "fastify";
import type { RemoteService, TimeService } from "../../core/service.js";
import { checkFork, checkId } from "../../core/validate.js";
import { whenGone } from "../gone.js";
import { replies } from "../replies.js";
import { idParams, sandboxInfo } from "../schemas.js";
import {
  collectAnswer,
  collectBody,
  forkBody,
  historyEntry,
  labelParams,
  moduleBody,
  restoreBody,
  snapshotAnswer,
  snapshotBody,
  snapshotQuery,
} from "../time-schemas.js";

interface ById<Body> {
  Params: { id: string };
  Body: Body;
}

const tags = ["snapshots"];
const restoreErrors = ["snapshot_not_found", "snapshot_damaged"] as const;
const stackErrors = ["invalid_request", "sandbox_not_found", "sandbox_not_ready", "sandbox_busy"] as const;

/** Snapshots, restores, forks and changes of the stack. */
export function timeRoutes(
  app: FastifyInstance,
  { stacks, snapshots, forks }: TimeService,
  remote: Pick<RemoteService, "durable"> | undefined,
): void {
  app.post<ById<SnapshotRequest> & { Querystring: { wait?: "durable" } }>(
    "/sandboxes/:id/snapshot",
    {
      ...emptyBodyIsObject,
      schema: {
        tags,
        operationId: "snapshot",
        summary: "Keeps the present files under a label; what runs goes on afterwards",
        params: idParams,
        querystring: snapshotQuery,
        body: ref(snapshotBody),
        response: replies(
          200,
          ref(snapshotAnswer),
          "invalid_request",
          "sandbox_not_found",
          "sandbox_not_ready",
          "snapshot_exists",
          "snapshot_limit",
          "snapshot_failed",
          "s3_off",
          "s3_unreachable",
          "s3_denied",
          "s3_failed",
        ),
      },
    },
    async (request, reply) => {
      const id = idOf(request);
      if (request.query.wait === undefined) return snapshots.take(id, request.body);
      if (remote === undefined)
        throw new SquashError("s3_off", `Cannot keep a snapshot of "${id}" durably: set SQUASH_S3_BUCKET`);
      const taken = await snapshots.take(id, request.body);
      await remote.durable(id, taken.snapshot, whenGone(reply));
      return { ...taken, durable: true as const };
    },
  );

  app.post<ById<RestoreRequest>>(
    "/sandboxes/:id/restore",
    stackRoute("restore", "Brings files and modules of a snapshot back, exactly", restoreBody, ...restoreErrors),
    (request, reply) => stacks.restore(idOf(request), request.body, whenGone(reply)),
  );

  app.post<ById<ModuleRequest>>(
    "/sandboxes/:id/activate",
    stackRoute("activate", "Adds a module to the stack; what was written stays", moduleBody, "module_active"),
    (request, reply) => stacks.activate(idOf(request), request.body, whenGone(reply)),
  );

  app.post<ById<ModuleRequest>>(
    "/sandboxes/:id/deactivate",
    stackRoute("deactivate", "Takes a module away; what was written stays", moduleBody, "module_not_active"),
    (request, reply) => stacks.deactivate(idOf(request), request.body, whenGone(reply)),
  );

  app.post<ById<ForkRequest>>(
    "/sandboxes/:id/fork",
    {
      ...emptyBodyIsObject,
      schema: {
        tags,
        operationId: "fork",
        summary: "Creates sandboxes with the same stack, limits, policy and files; all or none",
        params: idParams,
        body: ref(forkBody),
        response: replies(
          201,
          Type.Array(ref(sandboxInfo)),
          "invalid_request",
          "sandbox_not_found",
          "sandbox_not_ready",
          "sandbox_exists",
          "sandbox_limit",
          "snapshot_not_found",
          "snapshot_damaged",
          "snapshot_failed",
          "create_failed",
        ),
      },
    },
    async (request, reply) => {
      const made = await forks.fork(idOf(request), checkFork(request.body), whenGone(reply));
      return reply.code(201).send(made);
    },
  );

  app.get<ById<undefined>>(
    "/sandboxes/:id/history",
    {
      schema: {
        tags,
        operationId: "history",
        summary: "Snapshots of a sandbox, oldest first, each with what it was taken after",
        params: idParams,
        response: replies(200, Type.Array(ref(historyEntry)), "sandbox_not_found"),
      },
    },
    (request) => snapshots.history(idOf(request)),
  );

  app.delete<{ Params: { id: string; label: string } }>(
    "/sandboxes/:id/snapshots/:label",
    {
      schema: {
        tags,
        operationId: "deleteSnapshot",
        summary: "Forgets a snapshot; those that were taken after it stay whole",
        params: labelParams,
        response: replies(204, Type.Null(), "sandbox_not_found", "snapshot_not_found"),
      },
    },
    async (request, reply) => {
      checkId(request.params.id);
      await snapshots.remove(request.params.id, request.params.label);
      return reply.code(204).send();
    },
  );

  app.post<{ Body: CollectRequest }>(
    "/gc",
    {
      ...emptyBodyIsObject,
      schema: {
        tags,
        operationId: "collect",
        summary: "Removes images of snapshots that no sandbox uses, and what caches and broken-off work have left",
        body: ref(collectBody),
        response: replies(200, ref(collectAnswer), "invalid_request"),
      },
    },
    (request) => snapshots.collect({ dryRun: request.body.dry_run ?? false }),
  );
}

function idOf(request: FastifyRequest<{ Params: { id: string } }>): string {
  checkId(request.params.id);
  return request.params.id;
}

function stackRoute(
  operationId: string,
  summary: string,
  body: TObject,
  ...errors: ErrorCode[]
): RouteShorthandOptions {
  const response = replies(200, ref(sandboxInfo), ...stackErrors, ...errors, "change_failed");
  return { schema: { tags, operationId, summary, params: idParams, body: ref(body), response } };
}

const emptyBodyIsObject = {
  preValidation(request: FastifyRequest, _reply: unknown, done: () => void): void {
    request.body ??= {};
    done();
  },
};

function ref(schema: TObject): TRef {
  return Type.Ref(schema.$id ?? "");
}

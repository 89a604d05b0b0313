import { Type } from "@sinclair/typebox";
import { SquashError } from "@squash/sdk/errors";
import type { FastifyInstance } from "fastify";
import type { RemoteService } from "../../core/service.js";
import { checkId, isId, isLabel, isModuleName } from "../../core/validate.js";
import { whenGone } from "../gone.js";
import { queueEntry, remoteModule, remoteSnapshot, remoteSnapshotQuery, remoteStatus } from "../remote-schemas.js";
import { replies } from "../replies.js";

const tags = ["bucket"];
const errors = ["s3_off", "s3_unreachable", "s3_denied", "s3_failed", "s3_object_invalid"] as const;
const offStatus = {
  bucket: null,
  endpoint: null,
  prefix: "",
  encrypted: false,
  queued: 0,
  last_sync: null,
  sync_error: null,
} as const;

/** What lies in the bucket, and what is still to go there; `remote` is null where none is configured. */
export function remoteRoutes(app: FastifyInstance, remote: RemoteService | null): void {
  const on = (): RemoteService => {
    if (remote !== null) return remote;
    throw new SquashError("s3_off", "Cannot ask the bucket: none is configured; set SQUASH_S3_BUCKET");
  };

  app.get(
    "/s3",
    {
      schema: {
        tags,
        operationId: "bucketStatus",
        summary: "Which bucket it is, and how far it has what is here",
        response: replies(200, Type.Ref(remoteStatus.$id ?? "")),
      },
    },
    () => remote?.status() ?? offStatus,
  );

  app.get(
    "/s3/queue",
    {
      schema: {
        tags,
        operationId: "bucketQueue",
        summary: "What is still to be done in the bucket, oldest first",
        response: replies(200, Type.Array(Type.Ref(queueEntry.$id ?? "")), "s3_off"),
      },
    },
    () => on().queue(),
  );

  app.get(
    "/s3/modules",
    {
      schema: {
        tags,
        operationId: "bucketModules",
        summary: "Modules in the bucket",
        response: replies(200, Type.Array(Type.Ref(remoteModule.$id ?? "")), ...errors),
      },
    },
    (_, reply) => on().modules(whenGone(reply)),
  );

  app.delete<{ Params: { name: string } }>(
    "/s3/modules/:name",
    {
      schema: {
        tags,
        operationId: "removeBucketModule",
        summary: "Takes a module out of the bucket; what machines have stays. Its bytes go with the next s3-gc",
        params: Type.Object({ name: Type.String() }),
        response: replies(204, Type.Null(), "invalid_request", ...errors),
      },
    },
    async (request, reply) => {
      const { name } = request.params;
      if (!isModuleName(name))
        throw new SquashError("invalid_request", "Cannot remove the module: that cannot be its name");
      await on().remove({ module: name }, whenGone(reply));
      return reply.code(204).send();
    },
  );

  app.get<{ Querystring: { id?: string } }>(
    "/s3/snapshots",
    {
      schema: {
        tags,
        operationId: "bucketSnapshots",
        summary: "Snapshots in the bucket",
        querystring: remoteSnapshotQuery,
        response: replies(200, Type.Array(Type.Ref(remoteSnapshot.$id ?? "")), "sandbox_not_found", ...errors),
      },
    },
    (request, reply) => {
      const { id } = request.query;
      if (id !== undefined) checkId(id);
      return on().snapshots(id ?? null, whenGone(reply));
    },
  );

  app.delete<{ Params: { id: string } }>(
    "/s3/sandboxes/:id",
    {
      schema: {
        tags,
        operationId: "removeBucketSandbox",
        summary:
          "Takes all that there is of a sandbox out of the bucket; in ephemeral mode only of one that runs nowhere",
        params: Type.Object({ id: Type.String() }),
        response: replies(204, Type.Null(), "sandbox_not_found", "sandbox_leased", "sandbox_exists", ...errors),
      },
    },
    async (request, reply) => {
      const { id } = request.params;
      checkId(id);
      await on().remove({ id, label: null }, whenGone(reply));
      return reply.code(204).send();
    },
  );

  app.delete<{ Params: { id: string; label: string } }>(
    "/s3/snapshots/:id/:label",
    {
      schema: {
        tags,
        operationId: "removeBucketSnapshot",
        summary:
          "Takes a snapshot out of the bucket; where a machine has it, it stays. Its bytes go with the next s3-gc",
        params: Type.Object({ id: Type.String(), label: Type.String() }),
        response: replies(204, Type.Null(), "invalid_request", ...errors),
      },
    },
    async (request, reply) => {
      const { id, label } = request.params;
      if (!isId(id) || !isLabel(label))
        throw new SquashError("invalid_request", "Cannot remove the snapshot: that cannot be its name");
      await on().remove({ id, label }, whenGone(reply));
      return reply.code(204).send();
    },
  );
}

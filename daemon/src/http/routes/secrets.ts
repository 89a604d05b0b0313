import { Type } from "@sinclair/typebox";
import type { GrantRequest, SecretAuditEntry, SecretRequest } from "@squash/sdk/protocol";
import type { FastifyInstance } from "fastify";
import type { Authorities, SandboxService, SecretService } from "../../core/service.js";
import { bounds, checkId } from "../../core/validate.js";
import { replies } from "../replies.js";
import { idParams, sandboxInfo } from "../schemas.js";
import {
  authorityInfo,
  grantBody,
  secretAuditEntry,
  secretBody,
  secretInfo,
  secretList,
  secretVerdicts,
} from "../secret-schemas.js";

interface ByName {
  Params: { name: string };
}

interface AuditQuery {
  Querystring: { sandbox?: string; secret?: string; verdict?: SecretAuditEntry["verdict"]; limit?: string };
}

const tags = ["secrets"];
const params = Type.Object({ name: Type.String({ description: "the secret's name" }) });
const info = Type.Ref(secretInfo.$id ?? "");

/** Secrets, which go in and never out, who may use them, and what was done with them. */
export function secretRoutes(
  app: FastifyInstance,
  parts: { readonly secrets: SecretService; readonly sandboxes: SandboxService; readonly authorities: Authorities },
): void {
  const { secrets, sandboxes } = parts;

  app.get(
    "/secrets",
    {
      schema: {
        tags,
        operationId: "listSecrets",
        summary: "Secrets without their values, by name",
        response: replies(200, Type.Ref(secretList.$id ?? "")),
      },
    },
    () => secrets.list(),
  );

  app.put<ByName & { Body: SecretRequest }>(
    "/secrets/:name",
    {
      schema: {
        tags,
        operationId: "putSecret",
        summary:
          "Makes a secret, or replaces one; in force when it answers. The value goes in, and comes out of no route",
        params,
        body: Type.Ref(secretBody.$id ?? ""),
        response: replies(200, info, "invalid_request", "secrets_unusable"),
      },
    },
    (request) => secrets.put(request.params.name, request.body),
  );

  app.delete<ByName>(
    "/secrets/:name",
    {
      schema: {
        tags,
        operationId: "removeSecret",
        summary: "Removes a secret; when it answers, it is sent nowhere any more",
        params,
        response: replies(
          204,
          Type.Null({ description: "removed" }),
          "secret_not_found",
          "secret_in_use",
          "secrets_unusable",
        ),
      },
    },
    async (request, reply) => {
      await secrets.remove(request.params.name);
      return reply.code(204).send();
    },
  );

  app.post(
    "/secrets/rekey",
    {
      schema: {
        tags,
        operationId: "rekeySecrets",
        summary: "Encrypts the file of secrets with another key, which takes the place of the one in its file",
        response: replies(204, Type.Null({ description: "done" }), "invalid_request", "secrets_unusable"),
      },
    },
    async (_, reply) => {
      await secrets.rekey();
      return reply.code(204).send();
    },
  );

  app.get<AuditQuery>(
    "/secrets/audit",
    {
      schema: {
        tags,
        operationId: "auditSecrets",
        summary: "The newest requests with placeholders of secrets, oldest first; also of what does not exist any more",
        querystring: Type.Object({
          sandbox: Type.Optional(Type.String({ maxLength: 64, description: "of that sandbox only" })),
          secret: Type.Optional(Type.String({ maxLength: 64, description: "of the secret of that name only" })),
          verdict: Type.Optional(Type.Unsafe({ type: "string", enum: secretVerdicts, description: "with it only" })),
          limit: Type.Optional(
            Type.String({ pattern: "^[0-9]{1,4}$", description: "at most so many; 200, and 1000 at most" }),
          ),
        }),
        response: replies(200, Type.Array(Type.Ref(secretAuditEntry.$id ?? "")), "invalid_request"),
      },
    },
    ({ query: { limit, ...wanted } }) =>
      secrets.audit({ ...wanted, limit: Math.min(bounds.decisions.max, Number(limit ?? bounds.decisions.usual)) }),
  );

  app.put<{ Params: { id: string }; Body: GrantRequest }>(
    "/sandboxes/:id/secrets",
    {
      schema: {
        tags,
        operationId: "grantSecrets",
        summary:
          "Replaces which secrets a sandbox may use; answers when connections that had another one have been cut",
        params: idParams,
        body: Type.Ref(grantBody.$id ?? ""),
        response: replies(
          200,
          Type.Ref(sandboxInfo.$id ?? ""),
          "invalid_request",
          "sandbox_not_found",
          "sandbox_not_ready",
        ),
      },
    },
    (request) => {
      checkId(request.params.id);
      return sandboxes.setSecrets(request.params.id, request.body);
    },
  );

  authorityRoutes(app, parts.authorities);
}

function authorityRoutes(app: FastifyInstance, authorities: Authorities): void {
  const authority = Type.Ref(authorityInfo.$id ?? "");

  app.get(
    "/ca",
    {
      schema: {
        tags,
        operationId: "getAuthority",
        summary: "The certificate authority that new sandboxes trust",
        response: replies(200, authority, "network_off"),
      },
    },
    () => authorities.current(),
  );

  app.post(
    "/ca/rotate",
    {
      schema: {
        tags,
        operationId: "rotateAuthority",
        summary: "Makes another certificate authority; sandboxes that trust the old one go on with it",
        response: replies(200, authority, "network_off", "secrets_unusable"),
      },
    },
    () => authorities.rotate(),
  );
}

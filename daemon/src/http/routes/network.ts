import { Type } from "@sinclair/typebox";
import type { NetworkRequest } from "@squash/sdk/protocol";
import type { FastifyInstance } from "fastify";
import type { DecisionLog, SandboxService } from "../../core/service.js";
import { bounds, checkId } from "../../core/validate.js";
import { networkBody, networkDecision, networkInfo } from "../network-schemas.js";
import { replies } from "../replies.js";
import { idParams } from "../schemas.js";

interface ById {
  Params: { id: string };
}

const tags = ["network"];

/** What sandboxes may reach, and what was decided about it. */
export function networkRoutes(app: FastifyInstance, sandboxes: SandboxService, log: DecisionLog): void {
  const info = Type.Ref(networkInfo.$id ?? "");
  const failures = ["sandbox_not_found", "sandbox_not_ready", "network_off"] as const;

  app.get<ById>(
    "/sandboxes/:id/network",
    {
      schema: {
        tags,
        operationId: "getNetwork",
        summary: "What a sandbox may reach, and its figures",
        params: idParams,
        response: replies(200, info, ...failures),
      },
    },
    (request) => {
      checkId(request.params.id);
      return sandboxes.network(request.params.id);
    },
  );

  app.put<ById & { Body: NetworkRequest }>(
    "/sandboxes/:id/network",
    {
      schema: {
        tags,
        operationId: "setNetwork",
        summary: "Replaces what a sandbox may reach; answers when what is not allowed any more has been cut",
        params: idParams,
        body: Type.Ref(networkBody.$id ?? ""),
        response: replies(200, info, "invalid_request", ...failures),
      },
    },
    (request) => {
      checkId(request.params.id);
      return sandboxes.setNetwork(request.params.id, request.body);
    },
  );

  app.get<ById & { Querystring: { limit?: string } }>(
    "/sandboxes/:id/network/log",
    {
      schema: {
        tags,
        operationId: "networkLog",
        summary: "The newest decisions on what a sandbox wanted to reach, oldest first; also after its end",
        params: idParams,
        querystring: Type.Object({
          limit: Type.Optional(
            Type.String({ pattern: "^[0-9]{1,4}$", description: "at most so many; 200, and 1000 at most" }),
          ),
        }),
        response: replies(200, Type.Array(Type.Ref(networkDecision.$id ?? "")), "sandbox_not_found"),
      },
    },
    (request) => {
      checkId(request.params.id);
      const limit = Math.min(bounds.decisions.max, Number(request.query.limit ?? bounds.decisions.usual));
      return log.read(request.params.id, limit);
    },
  );
}

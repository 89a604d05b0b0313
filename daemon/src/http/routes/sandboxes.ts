import { Type } from "@sinclair/typebox";
import type { CreateSandbox, ExecRequest } from "@squash/sdk/protocol";
import type { FastifyInstance } from "fastify";
import type { SandboxService } from "../../core/service.js";
import { checkCreate, checkExec, checkId } from "../../core/validate.js";
import { whenGone } from "../gone.js";
import { replies } from "../replies.js";
import { createBody, execBody, execResult, idParams, sandboxInfo } from "../schemas.js";

interface ById {
  Params: { id: string };
}

/** The sandboxes and their commands. */
export function sandboxRoutes(app: FastifyInstance, sandboxes: SandboxService): void {
  const tags = ["sandboxes"];
  const info = Type.Ref(sandboxInfo.$id ?? "");
  const result = Type.Ref(execResult.$id ?? "");

  app.get(
    "/sandboxes",
    {
      schema: {
        tags,
        operationId: "listSandboxes",
        summary: "All sandboxes, oldest first",
        response: replies(200, Type.Array(info)),
      },
    },
    () => sandboxes.list(),
  );

  app.post<{ Body: CreateSandbox }>(
    "/sandboxes",
    {
      schema: {
        tags,
        operationId: "createSandbox",
        summary: "Creates a sandbox; answers when it accepts commands",
        body: Type.Ref(createBody.$id ?? ""),
        response: replies(
          201,
          info,
          "invalid_request",
          "module_not_found",
          "module_invalid",
          "sandbox_exists",
          "sandbox_limit",
          "create_failed",
        ),
      },
    },
    async (request, reply) => {
      const created = await sandboxes.create(checkCreate(request.body), whenGone(reply));
      return reply.code(201).send(created);
    },
  );

  app.get<ById>(
    "/sandboxes/:id",
    {
      schema: {
        tags,
        operationId: "getSandbox",
        summary: "One sandbox",
        params: idParams,
        response: replies(200, info, "sandbox_not_found"),
      },
    },
    (request) => {
      checkId(request.params.id);
      return sandboxes.get(request.params.id);
    },
  );

  app.delete<ById>(
    "/sandboxes/:id",
    {
      schema: {
        tags,
        operationId: "destroySandbox",
        summary: "Destroys a sandbox; answers when nothing of it is left",
        params: idParams,
        response: replies(204, Type.Null({ description: "destroyed" }), "sandbox_not_found", "kernel"),
      },
    },
    async (request, reply) => {
      checkId(request.params.id);
      await sandboxes.destroy(request.params.id);
      return reply.code(204).send();
    },
  );

  app.post<{ Body: ExecRequest } & ById>(
    "/sandboxes/:id/exec",
    {
      schema: {
        tags,
        operationId: "exec",
        summary: "Runs a command to its end; a command that fails is a success of this call",
        params: idParams,
        body: Type.Ref(execBody.$id ?? ""),
        response: replies(
          200,
          result,
          "invalid_request",
          "sandbox_not_found",
          "sandbox_not_ready",
          "sandbox_broken",
          "exec_failed",
        ),
      },
    },
    (request, reply) => {
      checkId(request.params.id);
      return sandboxes.exec(request.params.id, checkExec(request.body), whenGone(reply));
    },
  );

  app.get<ById>(
    "/sandboxes/:id/logs",
    {
      schema: {
        tags,
        operationId: "logs",
        summary: "Results of all finished commands, by seq",
        params: idParams,
        response: replies(200, Type.Array(result), "sandbox_not_found"),
      },
    },
    (request) => {
      checkId(request.params.id);
      return sandboxes.logs(request.params.id);
    },
  );
}

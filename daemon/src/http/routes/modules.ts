import { Type } from "@sinclair/typebox";
import type { FastifyInstance } from "fastify";
import type { ModuleService } from "../../core/service.js";
import { moduleInfo, moduleParams, putModuleQuery } from "../module-schemas.js";
import { replies } from "../replies.js";
import { errorBody } from "../schemas.js";
import { readUpload, uploadScope, type UploadQuery } from "../upload.js";

interface ByName {
  Params: { name: string };
}

const tags = ["modules"];

/** The modules that sandboxes can be made of. */
export function moduleRoutes(app: FastifyInstance, modules: ModuleService): void {
  const info = Type.Ref(moduleInfo.$id ?? "");
  const absent = { "404": Type.Ref(errorBody.$id ?? "", { description: "module_not_found" }) };

  app.get(
    "/modules",
    {
      schema: {
        tags,
        operationId: "listModules",
        summary: "Modules by name",
        response: replies(200, Type.Array(info)),
      },
    },
    () => modules.list(),
  );

  app.get<ByName>(
    "/modules/:name",
    {
      schema: {
        tags,
        operationId: "getModule",
        summary: "One module",
        params: moduleParams,
        response: { ...replies(200, info, "invalid_request"), ...absent },
      },
    },
    (request) => modules.get(request.params.name),
  );

  app.delete<ByName>(
    "/modules/:name",
    {
      schema: {
        tags,
        operationId: "removeModule",
        summary: "Removes a module that no sandbox uses",
        params: moduleParams,
        response: {
          ...replies(204, Type.Null({ description: "removed" }), "invalid_request", "module_in_use"),
          ...absent,
        },
      },
    },
    async (request, reply) => {
      await modules.remove(request.params.name);
      return reply.code(204).send();
    },
  );

  app.post<ByName>(
    "/modules/:name/trust",
    {
      schema: {
        tags,
        operationId: "trustModule",
        summary: "Writes a manifest for images that somebody put there by hand, which makes them trusted",
        params: moduleParams,
        response: { ...replies(200, info, "invalid_request", "module_invalid", "module_in_use"), ...absent },
      },
    },
    (request) => modules.trust(request.params.name),
  );

  uploadScope(app, (scope) => {
    scope.put<ByName & { Querystring: UploadQuery }>(
      "/modules/:name",
      {
        schema: {
          tags,
          operationId: "putModule",
          summary: "Takes an image; answers when it is in place, checked",
          description: "Needs its digest: ?sha256=HEX, or Content-Digest: sha-256=:BASE64: (RFC 9530).",
          params: moduleParams,
          querystring: putModuleQuery,
          consumes: ["application/octet-stream"],
          response: replies(
            201,
            info,
            "invalid_request",
            "module_invalid",
            "digest_mismatch",
            "module_exists",
            "module_in_use",
            "body_too_large",
            "unsupported_media_type",
            "job_limit",
            "build_failed",
          ),
        },
      },
      async (request, reply) => {
        const taken = await modules.put(request.params.name, readUpload(request, reply));
        return reply.code(201).send(taken);
      },
    );
  });
}

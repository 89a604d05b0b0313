import { Type } from "@sinclair/typebox";
import type { FastifyInstance } from "fastify";
import type { ModuleSource } from "../../core/service.js";
import { replies } from "../replies.js";
import { moduleInfo } from "../schemas.js";

/** The modules that sandboxes can be made of. */
export function moduleRoutes(app: FastifyInstance, modules: ModuleSource): void {
  const response = replies(200, Type.Array(Type.Ref(moduleInfo.$id ?? "")));
  app.get(
    "/modules",
    { schema: { tags: ["modules"], operationId: "listModules", summary: "Modules by name", response } },
    () => modules.list(),
  );
}

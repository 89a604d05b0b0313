import { Type } from "@sinclair/typebox";
import type { FastifyInstance } from "fastify";
import type { HealthSource } from "../../core/service.js";
import { health } from "../schemas.js";

/** Whether squashd works; needs no token. */
export function healthRoutes(app: FastifyInstance, source: HealthSource): void {
  const schema = {
    tags: ["daemon"],
    operationId: "health",
    summary: "State of the daemon; needs no token",
    security: [],
    response: { "200": Type.Ref(health.$id ?? "") },
  };
  app.get("/health", { schema }, () => source.health());
  app.get("/cgi-bin/health", { schema: { ...schema, hide: true } }, () => source.health());
}

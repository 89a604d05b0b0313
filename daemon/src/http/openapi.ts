import swagger from "@fastify/swagger";
import type { FastifyInstance } from "fastify";

const description = `Sandboxes made of stacked read-only images and a writable layer, on one Linux machine.

Every route below \`/v1\` exists below \`/cgi-bin/api\` as well, and \`/health\` as \`/cgi-bin/health\`. Bodies are JSON; every failure is
\`{"error": "<text>", "code": "<stable code>"}\`. Times are RFC 3339 in UTC.`;

/** Collects the routes that are registered after it into an OpenAPI 3.1 document. */
export async function collectOpenapi(app: FastifyInstance, version: string): Promise<void> {
  await app.register(swagger, {
    openapi: {
      openapi: "3.1.0",
      info: { title: "squash", version, description, license: { name: "Apache-2.0", identifier: "Apache-2.0" } },
      components: {
        securitySchemes: {
          token: { type: "http", scheme: "bearer", description: "SQUASH_AUTH_TOKEN, where it is set" },
        },
      },
      security: [{}, { token: [] }],
      tags: [{ name: "daemon" }, { name: "modules" }, { name: "jobs" }, { name: "sandboxes" }, { name: "snapshots" }],
    },
    refResolver: {
      buildLocalReference: (json, _base, _fragment, index) =>
        typeof json["$id"] === "string" ? json["$id"] : `schema-${index}`,
    },
  });
}

/** The document as text, the same each time. Call it when the app is ready. */
export function renderOpenapi(app: FastifyInstance): string {
  return `${JSON.stringify(app.swagger(), null, 2)}\n`;
}

/** Serves the document at `/openapi.json`. */
export function openapiRoute(app: FastifyInstance): void {
  let text: string | null = null;
  app.get("/openapi.json", { schema: { hide: true } }, (_, reply) => {
    text ??= renderOpenapi(app);
    return reply.type("application/json; charset=utf-8").send(text);
  });
}

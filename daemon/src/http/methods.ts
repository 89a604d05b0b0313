import { SquashError } from "@squash/sdk/errors";
import type { FastifyInstance, HTTPMethods } from "fastify";
import { sendError } from "./errors.js";

const methods: readonly HTTPMethods[] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/** Answers 405 with `Allow` where a route exists but not for that method, and 404 elsewhere. Returns what completes the routes. */
export function watchMethods(app: FastifyInstance): () => void {
  const byUrl = new Map<string, Set<HTTPMethods>>();
  app.addHook("onRoute", ({ url, method }) => {
    const known = byUrl.get(url) ?? new Set();
    for (const each of [method].flat()) known.add(each);
    byUrl.set(url, known);
  });
  app.setNotFoundHandler((request, reply) => {
    const path = (request.url.split("?")[0] ?? "").slice(0, 200);
    sendError(
      reply,
      new SquashError("not_found", `Cannot find "${path}": not found; GET /openapi.json lists the routes`),
    );
  });
  return () => {
    for (const [url, known] of [...byUrl]) {
      const allow = methods.filter((method) => known.has(method)).join(", ");
      const others = methods.filter((method) => !known.has(method));
      app.route({
        url,
        method: others,
        schema: { hide: true },
        handler: (request, reply) => {
          void reply.header("allow", allow);
          sendError(
            reply,
            new SquashError("method_not_allowed", `Cannot ${request.method} here: this route knows ${allow}`),
          );
        },
      });
    }
  };
}

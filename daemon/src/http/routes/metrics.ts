import { Type } from "@sinclair/typebox";
import type { FastifyInstance } from "fastify";

/** What Prometheus scrapes. */
export interface MetricsSource {
  readonly contentType: string;
  /** The metrics in the exposition format. */
  render(): Promise<string>;
}

/** Figures for Prometheus. */
export function metricsRoutes(app: FastifyInstance, metrics: MetricsSource): void {
  const response = {
    "200": { description: "Prometheus' text format", content: { "text/plain": { schema: Type.String() } } },
  };
  app.get(
    "/metrics",
    { schema: { tags: ["daemon"], operationId: "metrics", summary: "Figures for Prometheus", response } },
    async (_, reply) => reply.type(metrics.contentType).send(await metrics.render()),
  );
}

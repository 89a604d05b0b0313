import type { Socket } from "node:net";
import type { ErrorCode } from "@squash/sdk/protocol";
import Fastify, { type FastifyInstance } from "fastify";
import type {
  Authorities,
  DecisionLog,
  DiffService,
  HealthSource,
  JobService,
  ModuleService,
  RemoteService,
  SandboxService,
  SecretService,
  TimeService,
} from "../core/service.js";
import { requireOwnOrigin, requireToken } from "./auth.js";
import { limitBodies } from "./body-deadline.js";
import { errorHandler, type ReportBug } from "./errors.js";
import { watchMethods } from "./methods.js";
import { collectOpenapi, openapiRoute } from "./openapi.js";
import { pageRoutes } from "./page.js";
import { diffRoutes } from "./routes/diff.js";
import { healthRoutes } from "./routes/health.js";
import { jobRoutes } from "./routes/jobs.js";
import { metricsRoutes, type MetricsSource } from "./routes/metrics.js";
import { moduleRoutes } from "./routes/modules.js";
import { networkRoutes } from "./routes/network.js";
import { remoteRoutes } from "./routes/remote.js";
import { retentionRoutes } from "./routes/retention.js";
import { secretRoutes } from "./routes/secrets.js";
import { sandboxRoutes } from "./routes/sandboxes.js";
import { timeRoutes } from "./routes/time.js";
import { namedSchemas } from "./schemas.js";

export interface AppOptions {
  readonly version: string;
  readonly sandboxes: SandboxService;
  readonly time: TimeService;
  readonly diffs: DiffService;
  readonly modules: ModuleService;
  readonly jobs: JobService;
  readonly health: HealthSource;
  readonly decisions: DecisionLog;
  readonly secrets: SecretService;
  readonly authorities: Authorities;
  /** absent where no bucket is configured */
  readonly remote?: RemoteService;
  readonly metrics: MetricsSource;
  /** folder of the page's files */
  readonly webDir: string;
  /** "" for none */
  readonly authToken: string;
  /** whether a browser on this machine could reach it, so that another site's page must be kept out */
  readonly checkOrigin: boolean;
  readonly reportBug: ReportBug;
}

const limits = {
  bodyBytes: 1_048_576,
  headerBytes: 16_384,
  /** for the headers, and for the whole request, to arrive */
  headersMs: 10_000,
  requestMs: 30_000,
  idleMs: 120_000,
};

/** The HTTP surface, ready to listen or to be asked with `inject`. */
export async function makeApp(options: AppOptions): Promise<FastifyInstance> {
  const app = Fastify({
    bodyLimit: limits.bodyBytes,
    requestTimeout: 0, // see limitBodies
    keepAliveTimeout: limits.idleMs,
    routerOptions: { maxParamLength: limits.headerBytes }, // an id that is too long is one that does not exist
    exposeHeadRoutes: true,
    forceCloseConnections: true,
    http: { maxHeaderSize: limits.headerBytes, headersTimeout: limits.headersMs },
    clientErrorHandler: refuseConnection,
    // a misspelt limit must be an error, not a missing one
    ajv: { customOptions: { removeAdditional: false, coerceTypes: false, useDefaults: false, discriminator: true } },
  });
  // the answers are plain data already; a serialiser would drop what a schema forgot without a word
  app.setSerializerCompiler(() => (data) => JSON.stringify(data));
  app.setErrorHandler(errorHandler(options.reportBug));
  acceptJsonOnly(app);
  limitBodies(app, limits.requestMs);
  const completeMethods = watchMethods(app);
  await collectOpenapi(app, options.version);
  for (const schema of namedSchemas) app.addSchema(schema);

  if (options.checkOrigin && options.authToken === "") app.addHook("onRequest", requireOwnOrigin());
  app.addHook("onSend", (_request, reply, _payload, done) => {
    void reply.header("x-content-type-options", "nosniff");
    done();
  });
  healthRoutes(app, options.health);
  openapiRoute(app);
  pageRoutes(app, options.webDir);
  await app.register((scope, _, done) => {
    guard(scope, options.authToken);
    metricsRoutes(scope, options.metrics);
    done();
  });
  for (const prefix of ["/v1", "/cgi-bin/api"]) {
    await app.register(
      (scope, _, done) => {
        guard(scope, options.authToken);
        if (prefix !== "/v1") hideFromOpenapi(scope);
        moduleRoutes(scope, options.modules);
        jobRoutes(scope, options.jobs);
        sandboxRoutes(scope, options.sandboxes);
        networkRoutes(scope, options.sandboxes, options.decisions);
        secretRoutes(scope, options);
        timeRoutes(scope, options.time, options.remote);
        remoteRoutes(scope, options.remote ?? null);
        retentionRoutes(scope, options.time, options.jobs);
        diffRoutes(scope, options.diffs);
        done();
      },
      { prefix },
    );
  }
  completeMethods();
  await app.ready();
  return app;
}

function guard(scope: FastifyInstance, token: string): void {
  if (token !== "") scope.addHook("onRequest", requireToken(token));
}

/** The same routes are described once, below /v1. */
function hideFromOpenapi(scope: FastifyInstance): void {
  scope.addHook("onRoute", (route) => {
    route.schema = { ...route.schema, hide: true };
  });
}

/** A body is JSON or absent; one that is empty counts as absent, whatever its type says. */
function acceptJsonOnly(app: FastifyInstance): void {
  app.removeAllContentTypeParsers();
  const parse = app.getDefaultJsonParser("error", "error");
  app.addContentTypeParser("application/json", { parseAs: "string" }, (request, body, done) => {
    if (body === "") done(null, undefined);
    else void parse(request, body as string, done);
  });
}

const clientErrors: Readonly<
  Record<string, { readonly status: number; readonly code: ErrorCode; readonly text: string }>
> = {
  ERR_HTTP_REQUEST_TIMEOUT: { status: 408, code: "request_timeout", text: "it did not arrive in time" },
  HPE_HEADER_OVERFLOW: { status: 431, code: "invalid_request", text: "its headers are larger than 16 KiB" },
};

/** Answers what is not HTTP, too large or too slow, and hangs up. */
function refuseConnection(error: Error & { code?: string }, socket: Socket): void {
  if (socket.destroyed || !socket.writable) return;
  const { status, code, text } = clientErrors[error.code ?? ""] ?? {
    status: 400,
    code: "invalid_request",
    text: "it is not HTTP/1.1",
  };
  const body = JSON.stringify({ error: `Cannot read the request: ${text}`, code });
  const head = `HTTP/1.1 ${status} Error\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n`;
  socket.end(head + body);
}

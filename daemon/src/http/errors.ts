import { SquashError, isSquashError } from "@squash/sdk/errors";
import { errorStatus, type ErrorBody, type ErrorCode } from "@squash/sdk/protocol";
import type { FastifyError, FastifyReply, FastifyRequest, FastifySchemaValidationError } from "fastify";

/** Where what nobody expected is written down; the caller only learns that it happened. */
export type ReportBug = (error: unknown, route: string) => void;

const ofFastify: Readonly<Record<string, ErrorCode>> = {
  FST_ERR_CTP_INVALID_MEDIA_TYPE: "unsupported_media_type",
  FST_ERR_CTP_BODY_TOO_LARGE: "body_too_large",
  FST_ERR_CTP_INVALID_CONTENT_LENGTH: "invalid_request",
  FST_ERR_CTP_INVALID_JSON_BODY: "invalid_request",
  FST_ERR_BAD_URL: "invalid_request",
};

const texts: Partial<Record<ErrorCode, string>> = {
  unsupported_media_type: "Cannot read the body: its Content-Type must be application/json",
  body_too_large: "Cannot read the body: it is larger than 1 MiB",
};

/** Answers every failure as `{error, code, details?}`. */
export function errorHandler(report: ReportBug) {
  return (error: FastifyError, request: FastifyRequest, reply: FastifyReply): void => {
    const known = toSquashError(error);
    if (known === null) report(error, `${request.method} ${request.routeOptions.url ?? "?"}`);
    // an answer that comes before the body was read would leave the rest of it to be taken for the next request
    if (error.code === "FST_ERR_CTP_BODY_TOO_LARGE") void reply.header("connection", "close");
    const answer = known ?? new SquashError("internal", "Cannot answer: squashd met a bug; its log says more");
    sendError(reply, answer, answer.code === "module_not_found" && isOfModule(request) ? 404 : undefined);
  };
}

/** Whether the path names a module, so that a missing one is what is not found, and not a mistake in the body. */
function isOfModule(request: FastifyRequest): boolean {
  return request.routeOptions.url?.includes("/modules/:name") === true;
}

/** Sends an error as it goes over the wire. */
export function sendError(reply: FastifyReply, error: SquashError, status: number = errorStatus[error.code]): void {
  const body: ErrorBody = { error: error.message, code: error.code };
  if (Object.keys(error.details).length > 0) body.details = { ...error.details };
  void reply.code(status).type("application/json; charset=utf-8").send(body);
}

function toSquashError(error: FastifyError): SquashError | null {
  if (isSquashError(error)) return error;
  if (error.validation !== undefined)
    return new SquashError("invalid_request", `Cannot accept the request: ${describe(error.validation)}`);
  const code = ofFastify[error.code];
  if (code !== undefined) return new SquashError(code, texts[code] ?? `Cannot read the request: ${error.message}`);
  // what the JSON parser throws has a status and no code of Fastify
  if (error.statusCode === 400) return new SquashError("invalid_request", `Cannot read the body: ${error.message}`);
  return null;
}

/** The schema's complaints in words; of several about one field the last says most. */
function describe(complaints: readonly FastifySchemaValidationError[]): string {
  const byField = new Map<string, string>();
  for (const { instancePath, keyword, params, message } of complaints) {
    const field = instancePath.slice(1).replaceAll("/", ".");
    if (keyword === "additionalProperties")
      byField.set(String(params["additionalProperty"]), "is not a field of this request");
    else if (keyword === "required") byField.set(String(params["missingProperty"]), "is required");
    else if (keyword === "pattern" && field === "id")
      byField.set(field, "must be 1 to 64 letters, digits, _ or -, and neither start nor end with -");
    else byField.set(field === "" ? "the body" : field, wordsOf(keyword, message));
  }
  return [...byField].map(([field, problem]) => `${field} ${problem}`).join("; ");
}

function wordsOf(keyword: string, message: string | undefined): string {
  if (keyword === "anyOf") return "is of none of the allowed types";
  return message ?? "is not valid";
}

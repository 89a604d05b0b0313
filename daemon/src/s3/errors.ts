import { SquashError, isSquashError } from "@squash/sdk/errors";

interface SdkError {
  readonly name?: string;
  readonly message?: string;
  readonly code?: string;
  readonly $metadata?: { readonly httpStatusCode?: number };
}

/** that say nothing against the request, only that it cannot be answered now */
const passing = [
  "TimeoutError",
  "SlowDown",
  "RequestTimeout",
  "Throttling",
  "ThrottlingException",
  "ServiceUnavailable",
];
const deniedCodes = ["ExpiredToken", "InvalidToken", "TokenRefreshRequired", "CredentialsProviderError"];
const hints: Readonly<Record<string, string>> = {
  NoSuchBucket: "make the bucket, or set SQUASH_S3_BUCKET",
  InvalidAccessKeyId: "check SQUASH_S3_ACCESS_KEY_ID",
  SignatureDoesNotMatch: "check SQUASH_S3_SECRET_ACCESS_KEY and SQUASH_S3_REGION",
  ExpiredToken: "renew the credentials, SQUASH_S3_SESSION_TOKEN among them",
  RequestTimeTooSkewed: "set this machine's clock",
  CredentialsProviderError: "set SQUASH_S3_ACCESS_KEY_ID and SQUASH_S3_SECRET_ACCESS_KEY",
};

/** Whether the store says that there is no such object. */
export function isMissing(error: unknown): boolean {
  const { name = "" } = error as SdkError;
  return name === "NoSuchKey" || name === "NotFound";
}

/** Whether it says that the object has no such bytes. */
export function isBeyond(error: unknown): boolean {
  return statusOf(error) === 416;
}

/** Whether it says that what was to hold for a write does not. */
export function isConditionFailure(error: unknown): boolean {
  return (error as SdkError).name === "PreconditionFailed" || statusOf(error) === 412;
}

/** Whether it took the request's time for wrong. */
export function isSkewed(error: unknown): boolean {
  return (error as SdkError).name === "RequestTimeTooSkewed";
}

/** Whether two such writes met, of which neither may have been done. */
export function isConflict(error: unknown): boolean {
  return (error as SdkError).name === "ConditionalRequestConflict" || statusOf(error) === 409;
}

/** What callers are told of an error that the SDK, or the reading of an answer, threw. `doing` such as `write "modules/a"`. */
export function s3Error(error: unknown, doing: string, signal: AbortSignal): SquashError {
  if (isSquashError(error)) return error;
  const { name = "Error", message = "", code } = error as SdkError;
  if (signal.aborted || name === "AbortError")
    return new SquashError("cancelled", `Cannot ${doing} in the bucket: cancelled`, { cause: error });
  const hint = hints[name] === undefined ? "" : `; ${hints[name]}`;
  // an answer to HEAD has no body that could say more
  const isUnsaid = name === "Unknown" || name === "UnknownError";
  const what = isUnsaid ? `it answers with status ${statusOf(error)}` : `${code ?? name}: ${message.slice(0, 300)}`;
  const text = `Cannot ${doing} in the bucket: ${what}${hint}`;
  return new SquashError(codeOf(error), text, { cause: error, details: { s3_error: code ?? name } });
}

function codeOf(error: unknown): "s3_unreachable" | "s3_denied" | "s3_failed" {
  const { name = "" } = error as SdkError;
  const status = statusOf(error);
  if (deniedCodes.includes(name) || status === 401 || status === 403) return "s3_denied";
  // without a status there was no answer
  if (status === undefined || status >= 500 || passing.includes(name)) return "s3_unreachable";
  return "s3_failed";
}

function statusOf(error: unknown): number | undefined {
  return (error as SdkError).$metadata?.httpStatusCode;
}

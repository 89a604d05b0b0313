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
const unknownAuthority = "name a PEM file of the authority that issued its certificate in NODE_EXTRA_CA_CERTS";
const hints: Readonly<Record<string, string>> = {
  NoSuchBucket: "make the bucket, or set SQUASH_S3_BUCKET",
  InvalidAccessKeyId: "check SQUASH_S3_ACCESS_KEY_ID",
  SignatureDoesNotMatch: "check SQUASH_S3_SECRET_ACCESS_KEY and SQUASH_S3_REGION",
  ExpiredToken: "renew the credentials, SQUASH_S3_SESSION_TOKEN among them",
  RequestTimeTooSkewed: "set this machine's clock",
  CredentialsProviderError: "set SQUASH_S3_ACCESS_KEY_ID and SQUASH_S3_SECRET_ACCESS_KEY",
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: unknownAuthority,
  UNABLE_TO_GET_ISSUER_CERT: unknownAuthority,
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: unknownAuthority,
  SELF_SIGNED_CERT_IN_CHAIN: unknownAuthority,
  DEPTH_ZERO_SELF_SIGNED_CERT: unknownAuthority,
  ERR_TLS_CERT_ALTNAME_INVALID: "SQUASH_S3_ENDPOINT must have a name that its certificate has",
  CERT_HAS_EXPIRED: "renew its certificate, or set this machine's clock",
  CERT_NOT_YET_VALID: "set this machine's clock, or the one that its certificate was made by",
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
  const advice = hints[name] ?? hints[code ?? ""];
  const hint = advice === undefined ? "" : `; ${advice}`;
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

import { xmlDocument } from "./xml.js";

const statusOf = {
  AccessDenied: 403,
  AuthorizationHeaderMalformed: 400,
  BadDigest: 400,
  ConditionalRequestConflict: 409,
  EntityTooLarge: 400,
  EntityTooSmall: 400,
  ExpiredToken: 400,
  IncompleteBody: 400,
  InternalError: 500,
  InvalidAccessKeyId: 403,
  InvalidArgument: 400,
  InvalidPart: 400,
  InvalidPartOrder: 400,
  InvalidRange: 416,
  InvalidRequest: 400,
  InvalidToken: 400,
  KeyTooLongError: 400,
  MalformedXML: 400,
  MissingContentLength: 411,
  NoSuchBucket: 404,
  NoSuchKey: 404,
  NoSuchUpload: 404,
  NotImplemented: 501,
  NotModified: 304,
  PreconditionFailed: 412,
  RequestTimeTooSkewed: 403,
  SignatureDoesNotMatch: 403,
  XAmzContentSHA256Mismatch: 400,
} as const;

export type S3Code = keyof typeof statusOf;

/** A refusal, as S3 names it. */
export class S3Error extends Error {
  readonly code: S3Code;
  readonly status: number;
  /** further elements of the answer */
  readonly details: Readonly<Record<string, string>>;

  constructor(code: S3Code, message: string, details: Readonly<Record<string, string>> = {}) {
    super(message);
    this.code = code;
    this.status = statusOf[code];
    this.details = details;
  }
}

/** The body of an answer that refuses. */
export function errorDocument(code: string, message: string, more: Readonly<Record<string, string>>): string {
  return xmlDocument("Error", { Code: code, Message: message, ...more }).replace(/ xmlns="[^"]*"/, "");
}

import { SquashError } from "@squash/sdk/errors";
import { describe, expect, it } from "vitest";
import { isBeyond, isConditionFailure, isConflict, isMissing, s3Error } from "./errors.js";

const { signal } = new AbortController();

function sdkError(name: string, status?: number, more: object = {}): Error {
  const metadata = status === undefined ? {} : { $metadata: { httpStatusCode: status } };
  return Object.assign(new Error("what it says"), { name, ...metadata, ...more });
}

describe("what callers are told of the store's errors", () => {
  it.each<[string, Error, RegExp]>([
    ["s3_unreachable", sdkError("Error", undefined, { code: "ECONNREFUSED" }), /ECONNREFUSED: what it says/],
    ["s3_unreachable", sdkError("TimeoutError"), /TimeoutError/],
    [
      "s3_unreachable",
      sdkError("Error", undefined, { code: "SELF_SIGNED_CERT_IN_CHAIN" }),
      /; .* NODE_EXTRA_CA_CERTS$/,
    ],
    ["s3_unreachable", sdkError("Error", undefined, { code: "CERT_HAS_EXPIRED" }), /; renew its certificate/],
    ["s3_unreachable", sdkError("InternalError", 500), /InternalError/],
    ["s3_unreachable", sdkError("SlowDown", 503), /SlowDown/],
    ["s3_unreachable", sdkError("SlowDown", 429), /SlowDown/],
    ["s3_unreachable", sdkError("RequestTimeout", 400), /RequestTimeout/],
    ["s3_unreachable", sdkError("Unknown", 503), /it answers with status 503$/],
    ["s3_denied", sdkError("AccessDenied", 403), /AccessDenied/],
    ["s3_denied", sdkError("Unknown", 403), /it answers with status 403$/],
    ["s3_denied", sdkError("ExpiredToken", 400), /; renew the credentials/],
    ["s3_denied", sdkError("InvalidAccessKeyId", 403), /; check SQUASH_S3_ACCESS_KEY_ID$/],
    ["s3_denied", sdkError("SignatureDoesNotMatch", 403), /; check SQUASH_S3_SECRET_ACCESS_KEY/],
    ["s3_denied", sdkError("RequestTimeTooSkewed", 403), /; set this machine's clock$/],
    ["s3_denied", sdkError("CredentialsProviderError"), /; set SQUASH_S3_ACCESS_KEY_ID/],
    ["s3_failed", sdkError("NoSuchBucket", 404), /; make the bucket/],
    ["s3_failed", sdkError("InvalidRequest", 400), /InvalidRequest/],
  ])("is %s for %o", (code, error, text) => {
    const told = s3Error(error, 'write "a"', signal);
    expect(told).toMatchObject({ code, cause: error, message: expect.stringMatching(text) as unknown });
    expect(told.message).toMatch(/^Cannot write "a" in the bucket: /);
  });

  it("is that it was called off, whatever that looks like", () => {
    expect(s3Error(sdkError("AbortError"), "x", signal).code).toBe("cancelled");
    expect(s3Error(sdkError("Error", 500), "x", AbortSignal.abort()).code).toBe("cancelled");
  });

  it("is what we say ourselves as it is, and no more of a text than helps", () => {
    const own = new SquashError("s3_object_invalid", "ours");
    expect(s3Error(own, "x", signal)).toBe(own);
    expect(s3Error(new Error("y".repeat(10_000)), "x", signal).message.length).toBeLessThan(400);
  });

  it("tells what is not there, what has changed, what met and what is beyond the end", () => {
    expect(["NoSuchKey", "NotFound"].every((name) => isMissing(sdkError(name, 404)))).toBe(true);
    expect(["NoSuchBucket", "NoSuchUpload"].some((name) => isMissing(sdkError(name, 404)))).toBe(false);
    expect([isConditionFailure(sdkError("x", 412)), isConditionFailure(sdkError("x", 409))]).toEqual([true, false]);
    expect([isConflict(sdkError("x", 409)), isConflict(sdkError("x", 412))]).toEqual([true, false]);
    expect([isBeyond(sdkError("InvalidRange", 416)), isBeyond(sdkError("x", 404))]).toEqual([true, false]);
  });
});

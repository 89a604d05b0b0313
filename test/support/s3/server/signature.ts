import { SignatureV4 } from "@smithy/signature-v4";
import { Sha256 } from "../../sha256.js";
import { S3Error } from "./s3-error.js";
import { headerOf, type S3Request } from "./s3-request.js";

/** Who may come in. */
export interface S3Credentials {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  /** what must come along, for temporary ones */
  readonly sessionToken?: string;
}

export interface S3Access extends S3Credentials {
  /** default: all is allowed; "expired" ones are refused as S3 does with those whose time is over */
  readonly state?: "read-only" | "expired";
}

/** Where and when requests are taken. */
export interface Gate {
  readonly access: readonly S3Access[];
  readonly region: string;
  /** the server's clock */
  readonly nowMs: number;
}

/** A request that is signed rightly, as far as its body is not concerned. */
export interface Verified {
  readonly access: S3Access;
  /** "x-amz-content-sha256": the hash of the body, or how else that is signed */
  readonly payload: string;
  /** of the headers; chunks of the body go on from it */
  readonly signature: string;
  /** signs a chunk or trailers: what it is of, the signature before, and hashes */
  signPart(what: "PAYLOAD" | "TRAILER", previous: string, hashes: readonly string[]): Promise<string>;
}

const maxSkewMs = 15 * 60_000;
const pattern = /^AWS4-HMAC-SHA256 Credential=([^/,]+)\/([^,]+), ?SignedHeaders=([^,]+), ?Signature=([0-9a-f]{64})$/;

/**
 * Verifies the signature in a request's headers, which must cover all that matters. What it must be is computed by the signer that AWS
 * publishes, from what has arrived. Throws `S3Error` as S3 refuses.
 */
export async function verify(request: S3Request, gate: Gate): Promise<Verified> {
  const authorization = headerOf(request, "authorization");
  if (authorization === "") throw new S3Error("AccessDenied", "Access Denied");
  const match = pattern.exec(authorization);
  if (match === null) throw new S3Error("AuthorizationHeaderMalformed", "The authorization header is malformed");
  const [, accessKeyId = "", scope = "", names = "", signature = ""] = match;
  const date = dateOf(headerOf(request, "x-amz-date"));
  checkScope(scope, date, gate);
  const access = gate.access.find((each) => each.accessKeyId === accessKeyId);
  if (access === undefined)
    throw new S3Error("InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records.");
  if (Math.abs(date.getTime() - gate.nowMs) > maxSkewMs)
    throw new S3Error(
      "RequestTimeTooSkewed",
      "The difference between the request time and the current time is too large.",
      {
        ServerTime: new Date(gate.nowMs).toISOString(),
      },
    );
  const signer = new SignatureV4({
    service: "s3",
    region: gate.region,
    credentials: { accessKeyId, secretAccessKey: access.secretAccessKey },
    sha256: Sha256,
    uriEscapePath: false,
    applyChecksum: false,
  });
  const signedNames = names.split(";");
  checkCoverage(request, signedNames);
  if ((await signatureOf(request, { signer, date, signedNames })) !== signature)
    throw new S3Error(
      "SignatureDoesNotMatch",
      "The request signature we calculated does not match the one you provided.",
    );
  checkToken(request, access);
  const signPart: Verified["signPart"] = (what, previous, hashes) => {
    const text = [`AWS4-HMAC-SHA256-${what}`, headerOf(request, "x-amz-date"), scope, previous, ...hashes].join("\n");
    return signer.sign(text, { signingDate: date });
  };
  return { access, payload: headerOf(request, "x-amz-content-sha256"), signature, signPart };
}

function dateOf(text: string): Date {
  const date = new Date(text.replace(/^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/, "$1-$2-$3T$4:$5:$6Z"));
  if (Number.isNaN(date.getTime())) throw new S3Error("AccessDenied", "AWS authentication requires a valid x-amz-date");
  return date;
}

function checkScope(scope: string, date: Date, { region }: Gate): void {
  const day = date.toISOString().slice(0, 10).replaceAll("-", "");
  if (scope === `${day}/${region}/s3/aws4_request`) return;
  throw new S3Error("AuthorizationHeaderMalformed", `the scope is ${scope}, and the region is ${region}`, {
    Region: region,
  });
}

function checkCoverage(request: S3Request, signedNames: readonly string[]): void {
  const needed = Object.keys(request.http.headers).filter(
    (name) => name === "host" || name === "content-md5" || name.startsWith("x-amz-"),
  );
  const unsigned = needed.filter((name) => !signedNames.includes(name));
  if (unsigned.length > 0)
    throw new S3Error("AccessDenied", "There were headers present in the request which were not signed", {
      HeadersNotSigned: unsigned.join(", "),
    });
  if (headerOf(request, "x-amz-content-sha256") === "")
    throw new S3Error("InvalidRequest", "Missing required header for this request: x-amz-content-sha256");
}

function checkToken(request: S3Request, access: S3Access): void {
  if (headerOf(request, "x-amz-security-token") !== (access.sessionToken ?? ""))
    throw new S3Error("InvalidToken", "The provided token is malformed or otherwise invalid.");
  if (access.state === "expired") throw new S3Error("ExpiredToken", "The provided token has expired.");
}

interface Signing {
  readonly signer: SignatureV4;
  readonly date: Date;
  readonly signedNames: readonly string[];
}

async function signatureOf(request: S3Request, { signer, date, signedNames }: Signing): Promise<string> {
  const { headers } = await signer.sign(
    {
      method: request.method,
      protocol: "http:",
      hostname: "",
      path: request.rawPath,
      query: { ...request.query },
      headers: Object.fromEntries(signedNames.map((name) => [name, headerOf(request, name)])),
    },
    { signingDate: date, signableHeaders: new Set(signedNames) },
  );
  return /Signature=(.*)$/.exec(headers["authorization"] ?? "")?.[1] ?? "";
}

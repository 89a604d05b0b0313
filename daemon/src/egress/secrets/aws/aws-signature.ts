import { fieldValues, withField } from "../fields.js";
import { field } from "../forms.js";
import type { Entry, Grants } from "../grants.js";
import { SecretRefusal } from "../secret-refusal.js";
import type { Fields, RequestHead } from "../substitution.js";
import { canonicalRequest, encode, queryPairs } from "./canonical.js";
import { ChunkSigner } from "./chunk-signer.js";
import { emptyHash, sha256, SigningKey, type Scope } from "./signing-key.js";

const algorithm = "AWS4-HMAC-SHA256";
/** a placeholder as the access key id, then the scope */
const credentialShape = /^([^/]+)\/(\d{8})\/([^/]+)\/([^/]+)\/aws4_request$/;

/** What the signature says of the body, and so what can become of it. */
export type Payload =
  /** its hash, given or not: it is to be found out where the body changes, or where it is not given */
  | { readonly kind: "hashed"; readonly given: string | null }
  /** nothing */
  | { readonly kind: "unsigned"; readonly word: string }
  /** it comes in chunks with sizes, which are signed one after the other or not at all */
  | { readonly kind: "chunks"; readonly word: string; readonly signed: boolean; readonly trailing: boolean };

interface Parsed {
  readonly place: "header" | "query";
  readonly accessKeyId: string;
  readonly scope: Scope;
  readonly signedHeaders: readonly string[];
  readonly dateTime: string;
  readonly payload: Payload;
}

/** The signature of a request for AWS whose access key id is a placeholder, to be made anew with the real key. */
export class AwsSignature {
  readonly payload: Payload;
  /** name of the secret of the access key id */
  readonly secret: string;
  readonly #parsed: Parsed;
  readonly #secretAccessKey: string;
  readonly #token: string | null;

  private constructor(entry: Entry, parsed: Parsed, keys: { secretAccessKey: string; token: string | null }) {
    this.secret = entry.secret.name;
    this.payload = parsed.payload;
    this.#parsed = parsed;
    this.#secretAccessKey = keys.secretAccessKey;
    this.#token = keys.token;
  }

  /** Null for a request that is not signed so, or whose access key id may not go with it anyway. Throws `SecretRefusal`. */
  static find(head: RequestHead, grants: Grants): AwsSignature | null {
    const raw = rawSignature(head);
    if (raw === null) return null;
    const [accessKeyId = "", ...scope] = raw.credential.split("/");
    const entry = grants.entries.find(({ secret }) => secret.sigv4 !== null && secret.placeholder === accessKeyId);
    if (entry === undefined || grants.objection(entry, raw.place) !== null) return null;
    const refuse = (reason: string): never => {
      throw new SecretRefusal(entry.secret.name, "signature", reason);
    };
    if (raw.algorithm !== algorithm) return refuse(`only ${algorithm} can be signed anew; set the client to use it`);
    const [, , date = "", region = "", service = ""] = credentialShape.exec([accessKeyId, ...scope].join("/")) ?? [];
    const dateTime = raw.dateTime ?? "";
    if (date === "" || !dateTime.startsWith(date)) return refuse("its scope or its time cannot be read");
    const payload = payloadOf(raw.payload, raw.place === "query" && service.startsWith("s3"));
    if (payload === null)
      return refuse("its body is signed in a way that cannot be signed anew; use a hash of it, or chunks");
    const { place, signedHeaders } = raw;
    const parsed: Parsed = { place, accessKeyId, scope: { date, region, service }, signedHeaders, dateTime, payload };
    return new AwsSignature(entry, parsed, keysOf(entry, grants));
  }

  /**
   * The head with the real signature, and what signs the body along with it, or null.
   * @param body all of it where that was collected; null where there is none or where it was not changed
   */
  sign(head: { method: string; authority: string; target: string; headers: Fields }, body: Buffer | null): Signed {
    const { place, scope, dateTime, payload } = this.#parsed;
    const withToken = this.#withToken(head);
    let { headers } = withToken;
    const word =
      payload.kind === "hashed" ? (body === null ? (payload.given ?? emptyHash) : sha256(body)) : payload.word;
    if (payload.kind === "hashed" && payload.given !== null && word !== payload.given) {
      headers = withField(headers, "x-amz-content-sha256", word);
    }
    const present = fieldValues(headers, "host").length > 0 ? headers : [...headers, ["host", head.authority] as const];
    const names = withToken.signedHeaders.filter((name) => fieldValues(present, name).length > 0);
    const target =
      place === "query" ? withParameter(withToken.target, "X-Amz-SignedHeaders", names.join(";")) : head.target;
    const key = new SigningKey(this.#secretAccessKey, scope, dateTime);
    const { method } = head;
    const { service } = scope;
    const request = canonicalRequest({
      method,
      target,
      signedHeaders: names,
      headers: present,
      payload: word,
      service,
    });
    const signature = key.sign(algorithm, [sha256(request)]);
    const chunks =
      payload.kind === "chunks" && payload.signed ? new ChunkSigner(key, signature, payload.trailing) : null;
    if (place === "query") return { target: withParameter(target, "X-Amz-Signature", signature), headers, chunks };
    const authorization = (fieldValues(headers, "authorization")[0] ?? "")
      .replace(/SignedHeaders=[^,\s]*/, () => `SignedHeaders=${names.join(";")}`)
      .replace(/Signature=[0-9a-fA-F]*/, () => `Signature=${signature}`);
    return { target, headers: withField(headers, "Authorization", authorization), chunks };
  }

  /** With the session token, where there is one which the client did not send. */
  #withToken(head: { target: string; headers: Fields }): {
    target: string;
    headers: Fields;
    signedHeaders: readonly string[];
  } {
    const { place, signedHeaders } = this.#parsed;
    const { target, headers } = head;
    const name = "x-amz-security-token";
    const sent = fieldValues(headers, name).length > 0 || /[?&]X-Amz-Security-Token=/.test(target);
    if (this.#token === null || sent) return { target, headers, signedHeaders };
    if (place === "query")
      return { target: withParameter(target, "X-Amz-Security-Token", this.#token), headers, signedHeaders };
    return {
      target,
      headers: [...headers, [name, this.#token]],
      signedHeaders: [...new Set([...signedHeaders, name])].toSorted(),
    };
  }
}

export interface Signed {
  readonly target: string;
  readonly headers: Fields;
  readonly chunks: ChunkSigner | null;
}

interface Raw {
  readonly place: "header" | "query";
  readonly algorithm: string;
  readonly credential: string;
  readonly signedHeaders: readonly string[];
  readonly dateTime: string | null;
  readonly payload: string | null;
}

function rawSignature(head: RequestHead): Raw | null {
  const first = (name: string): string | null => fieldValues(head.headers, name)[0] ?? null;
  const payload = first("x-amz-content-sha256");
  const names = (text: string): string[] => text.toLowerCase().split(";").filter(Boolean).toSorted();
  const match = /^(AWS4-[A-Z0-9-]+)\s+(.*)$/.exec(first("authorization") ?? "");
  if (match !== null) {
    const parts = new Map((match[2] ?? "").split(",").map((part) => pair(part.trim())));
    const date = first("x-amz-date") ?? basicTime(first("date") ?? "");
    return {
      place: "header",
      algorithm: match[1] ?? "",
      credential: parts.get("Credential") ?? "",
      signedHeaders: names(parts.get("SignedHeaders") ?? ""),
      dateTime: date,
      payload,
    };
  }
  const mark = head.target.indexOf("?");
  const query = new Map(mark === -1 ? [] : queryPairs(head.target.slice(mark + 1)));
  const credential = query.get("X-Amz-Credential");
  if (credential === undefined) return null;
  return {
    place: "query",
    algorithm: query.get("X-Amz-Algorithm") ?? "",
    credential,
    signedHeaders: names(query.get("X-Amz-SignedHeaders") ?? ""),
    dateTime: query.get("X-Amz-Date") ?? null,
    payload: query.get("X-Amz-Content-Sha256") ?? payload,
  };
}

function payloadOf(text: string | null, presignedForStorage: boolean): Payload | null {
  if (text === null)
    return presignedForStorage ? { kind: "unsigned", word: "UNSIGNED-PAYLOAD" } : { kind: "hashed", given: null };
  if (/^[0-9a-f]{64}$/i.test(text)) return { kind: "hashed", given: text };
  switch (text) {
    case "UNSIGNED-PAYLOAD":
      return { kind: "unsigned", word: text };
    case "STREAMING-UNSIGNED-PAYLOAD-TRAILER":
      return { kind: "chunks", word: text, signed: false, trailing: true };
    case "STREAMING-AWS4-HMAC-SHA256-PAYLOAD":
      return { kind: "chunks", word: text, signed: true, trailing: false };
    case "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER":
      return { kind: "chunks", word: text, signed: true, trailing: true };
    default:
      return null;
  }
}

/** Throws `SecretRefusal` where the key or the token is not there or may not be used for the request. */
function keysOf(entry: Entry, grants: Grants): { secretAccessKey: string; token: string | null } {
  const value = (name: string): string => {
    const other = grants.entries.find(({ secret }) => secret.name === name);
    if (other === undefined) {
      throw new SecretRefusal(
        entry.secret.name,
        "signature",
        `it needs the secret "${name}", which is not granted; grant both`,
      );
    }
    // one that is for no host by itself is kept for signing alone, and the key id's own rule decided
    const reason = other.secret.allowedHosts.length === 0 ? null : grants.objectionTo(other);
    if (reason !== null) throw new SecretRefusal(name, "signature", reason);
    grants.use(name, "signature");
    return grants.value(other) ?? "";
  };
  const { secretAccessKey, sessionToken } = entry.secret.sigv4 ?? { secretAccessKey: "", sessionToken: null };
  const token = sessionToken === null ? null : value(sessionToken);
  const unfit = token === null ? null : field.objection(token);
  if (unfit !== null) throw new SecretRefusal(sessionToken ?? "", "signature", unfit);
  return {
    secretAccessKey: value(secretAccessKey),
    token: token === null ? null : field.write(token).toString("latin1"),
  };
}

/** With a parameter in place of the one of that name, or at the end. */
function withParameter(target: string, name: string, value: string): string {
  const text = `${name}=${encode(value)}`;
  const found = new RegExp(`([?&])${name}=[^&]*`);
  if (found.test(target)) return target.replace(found, (_, before: string) => `${before}${text}`);
  return `${target}${target.includes("?") ? "&" : "?"}${text}`;
}

function pair(part: string): [string, string] {
  const sign = part.indexOf("=");
  return [part.slice(0, sign), part.slice(sign + 1)];
}

/** `YYYYMMDDTHHMMSSZ`; null for what is no date. */
function basicTime(date: string): string | null {
  const time = new Date(date);
  return Number.isNaN(time.getTime()) ? null : time.toISOString().replaceAll(/[-:]|\.\d+/g, "");
}

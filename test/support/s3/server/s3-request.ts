import type { IncomingMessage } from "node:http";
import { S3Error } from "./s3-error.js";

const maxKeyBytes = 1024;

/** A request for a bucket or an object in it. */
export interface S3Request {
  readonly method: string;
  /** as it was sent, which is what is signed */
  readonly rawPath: string;
  readonly bucket: string;
  /** empty where the bucket itself is meant */
  readonly key: string;
  readonly query: Readonly<Record<string, string>>;
  readonly http: IncomingMessage;
}

/** `domain` is what hosts of the kind "<bucket>.<domain>" end with; with any other host the path begins with the bucket. */
export function parseRequest(http: IncomingMessage, domain: string): S3Request {
  const [rawPath = "", search = ""] = splitOnce(http.url ?? "", "?");
  const host = (http.headers.host ?? "").replace(/:\d+$/, "");
  const inHost = host.endsWith(`.${domain}`) ? host.slice(0, -domain.length - 1) : null;
  const [first = "", rest = ""] = splitOnce(rawPath.slice(1), "/");
  const key = decode(inHost === null ? rest : rawPath.slice(1));
  if (Buffer.byteLength(key) > maxKeyBytes) throw new S3Error("KeyTooLongError", "Your key is too long");
  const pairs = search.split("&").filter((each) => each !== "");
  const query = pairs.map((pair) => splitOnce(pair, "=").map(decode));
  return {
    method: http.method ?? "",
    rawPath,
    bucket: inHost ?? decode(first),
    key,
    query: Object.fromEntries(query.map(([name = "", value = ""]) => [name, value])),
    http,
  };
}

/** A header, or the empty text. */
export function headerOf({ http }: Pick<S3Request, "http">, name: string): string {
  const value = http.headers[name];
  return Array.isArray(value) ? value.join(",") : (value ?? "");
}

/** A number that may be in the query, from `least` on. */
export function numberIn(
  { query }: S3Request,
  name: string,
  range: { readonly least: number; readonly most: number; readonly usual: number },
): number {
  const text = query[name];
  if (text === undefined || text === "") return range.usual;
  const value = /^\d+$/.test(text) ? Number(text) : NaN;
  if (!(value >= range.least)) throw new S3Error("InvalidArgument", `${name} is not a number that it may be`);
  return Math.min(value, range.most);
}

function splitOnce(text: string, separator: string): string[] {
  const at = text.indexOf(separator);
  return at < 0 ? [text] : [text.slice(0, at), text.slice(at + separator.length)];
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw new S3Error("InvalidArgument", "the address is not UTF-8");
  }
}

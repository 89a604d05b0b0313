/** The parts of a request that are signed. Text is bytes, one for each character. */
export interface SignedParts {
  readonly method: string;
  /** path and query as they are sent */
  readonly target: string;
  /** in lower case, sorted */
  readonly signedHeaders: readonly string[];
  readonly headers: readonly (readonly [string, string])[];
  /** what stands for the body: its SHA-256 in hex, or one of the words */
  readonly payload: string;
  /** of the scope */
  readonly service: string;
}

/** A request in the one form that is hashed. Source: AWS, "Create a signed AWS API request", step 1 */
export function canonicalRequest(parts: SignedParts): string {
  const { method, target, signedHeaders, headers, payload, service } = parts;
  const mark = target.indexOf("?");
  const path = mark === -1 ? target : target.slice(0, mark);
  return [
    method,
    service.startsWith("s3") ? encode(decode(path), "/") : encode(normalized(path), "/"),
    canonicalQuery(mark === -1 ? "" : target.slice(mark + 1)),
    ...signedHeaders.map((name) => `${name}:${canonicalValue(name, headers)}`),
    "",
    signedHeaders.join(";"),
    payload,
  ].join("\n");
}

/** Names and values of a query, decoded. */
export function queryPairs(query: string): [string, string][] {
  return query
    .split("&")
    .filter((part) => part !== "")
    .map((part) => {
      const sign = part.indexOf("=");
      return sign === -1 ? [decode(part), ""] : [decode(part.slice(0, sign)), decode(part.slice(sign + 1))];
    });
}

/** Percent-encoding of all but what needs none. @param kept characters that stay besides */
export function encode(text: string, kept = ""): string {
  return text.replaceAll(/[^A-Za-z0-9\-._~]/g, (character) =>
    kept.includes(character) ? character : `%${character.charCodeAt(0).toString(16).toUpperCase().padStart(2, "0")}`,
  );
}

function canonicalQuery(query: string): string {
  return queryPairs(query)
    .filter(([name]) => name !== "X-Amz-Signature")
    .map(([name, value]) => [encode(name), encode(value)] as const)
    .toSorted(([a, x], [b, y]) => compare(a, b) || compare(x, y))
    .map((pair) => pair.join("="))
    .join("&");
}

function canonicalValue(name: string, headers: SignedParts["headers"]): string {
  return headers
    .filter(([header]) => header.toLowerCase() === name)
    .map(([, value]) => value.trim().replaceAll(/ +/g, " "))
    .join(",");
}

/** Without `.` and `..`, and without segments that are empty. */
function normalized(path: string): string {
  const segments: string[] = [];
  for (const segment of path.split("/")) {
    if (segment === "..") segments.pop();
    else if (segment !== "" && segment !== ".") segments.push(segment);
  }
  const text = `/${segments.join("/")}`;
  return path.endsWith("/") && text !== "/" ? `${text}/` : text;
}

function decode(text: string): string {
  return text.replaceAll(/%([0-9a-f]{2})/gi, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)));
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

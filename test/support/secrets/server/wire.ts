import type { IncomingMessage, ServerResponse } from "node:http";

/** What a test tells the server when it starts it. */
export interface ServerOptions {
  /** where it listens, on ports 80 and 443 */
  readonly addresses: readonly string[];
  /** password of `git` and `apt`, whatever the user's name */
  readonly password: string;
  readonly aws: { readonly accessKeyId: string; readonly secretAccessKey: string };
  readonly oauth: { readonly clientId: string; readonly clientSecret: string; readonly refreshToken: string };
  /** folder with bare git repositories */
  readonly repositories: string;
  /** folder with an apt repository */
  readonly packages: string;
}

/** One thing that arrived, exactly as it did. */
export interface Received {
  /** "hello" is that of TLS, which has come to its end; "message" is one of a WebSocket */
  readonly kind: "hello" | "request" | "message";
  readonly address: string;
  /** name in the hello of TLS, empty without TLS */
  readonly serverName: string;
  readonly secure: boolean;
  /** of HTTP: "1.1" or "2.0" */
  readonly version: string;
  readonly method: string;
  readonly target: string;
  /** as they came, those with a colon of HTTP/2 included */
  readonly headers: readonly (readonly [string, string])[];
  readonly trailers: readonly (readonly [string, string])[];
  /** its beginning in latin1, and what it was as a whole */
  readonly body: string;
  readonly bodyBytes: number;
  readonly bodyHash: string;
  /** whether it came to its end */
  readonly complete: boolean;
  /** the server's own finding, such as that a signature is right */
  readonly verdict: string;
}

/** A request with what answers it. Those of HTTP/2 have what is used here of HTTP/1.1's. */
export interface Exchange {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly url: URL;
  /** the whole body, which is only kept up to some MiB */
  readonly body: () => Promise<Buffer>;
  /** puts a finding on the record of this request */
  readonly found: (verdict: string) => void;
  readonly options: ServerOptions;
}

/** Answers a request. */
export type Endpoint = (exchange: Exchange) => void | Promise<void>;

/** Value of a header that came once, or an empty text. */
export function headerOf({ request }: Exchange, name: string): string {
  const value = request.headers[name.toLowerCase()];
  return Array.isArray(value) ? value.join(", ") : (value ?? "");
}

/** Ends the exchange with a text. */
export function answer(
  { response }: Exchange,
  status: number,
  text: string,
  headers: Record<string, string> = {},
): void {
  response.writeHead(status, { "content-type": "text/plain", ...headers });
  response.end(text);
}

import type { Readable } from "node:stream";
import { AwsSignature } from "./aws/aws-signature.js";
import { acceptable, type Growth } from "./content-coding.js";
import { fieldValues, withField } from "./fields.js";
import { feed } from "./gather.js";
import type { Grants, SecretUse } from "./grants.js";
import { RequestBody, type PutBody } from "./request-body.js";
import { putIntoFields, putIntoTrailers } from "./request-fields.js";
import { putIntoTarget } from "./request-target.js";
import { Scrub, withBasics, type ScrubPattern } from "./scrub.js";
import type { Fields, Outgoing, RequestHead, RequestSubstitution, ResponseScrub } from "./substitution.js";
import { WebSocketStream } from "./websocket/web-socket-stream.js";

/** One request, with the secrets that may go with it. */
export class SecretRequest implements RequestSubstitution {
  readonly webSocket: RequestSubstitution["webSocket"];
  readonly answer: ResponseScrub;
  readonly #grants: Grants;
  readonly #head: RequestHead;
  readonly #target: string;
  readonly #headers: Fields;
  readonly #body: RequestBody | null;
  readonly #signature: AwsSignature | null;

  /** Throws `SecretRefusal`, `UnreadableContent`. */
  constructor(head: RequestHead, grants: Grants, scrub: readonly ScrubPattern[], growth: Growth) {
    this.#head = head;
    this.#grants = grants;
    this.#target = putIntoTarget(head.target, grants);
    const injects = grants.entries.filter((entry) => entry.secret.injectHeader !== null && grants.allows(entry));
    const { fields, basics } = putIntoFields(head.headers, grants, injects);
    this.#headers = negotiated(fields, head);
    this.#signature = AwsSignature.find(head, grants);
    this.#body = head.hasBody
      ? new RequestBody({ ...head, length: head.contentLength, growth }, grants, this.#signature)
      : null;
    const patterns = withBasics(scrub, basics);
    this.answer = new Scrub(patterns, fieldValues(head.headers, "accept-encoding").join() || null, growth);
    this.webSocket = head.webSocket
      ? { toServer: WebSocketStream.toServer(grants), toClient: WebSocketStream.toClient(patterns) }
      : null;
  }

  get collects(): boolean {
    return this.#body?.mode === "collect";
  }

  async send(body: Readable | null): Promise<Outgoing> {
    const put = body === null || this.#body === null ? null : await this.#body.begin(body);
    return this.#signed(this.#outgoing(put), put?.bytes ?? null);
  }

  trailers(fields: readonly (readonly [string, string])[]): Fields {
    return putIntoTrailers(fields, this.#grants);
  }

  used(): readonly string[] {
    return this.uses().map(({ secret }) => secret);
  }

  uses(): readonly SecretUse[] {
    return this.#grants.uses();
  }

  renew(): Promise<boolean> {
    return this.#grants.renewTokens();
  }

  #signed(outgoing: Outgoing, bytes: Buffer | null): Outgoing {
    if (this.#signature === null) return outgoing;
    const { method, host, authority = host } = this.#head;
    const { target, headers, chunks } = this.#signature.sign({ ...outgoing, method, authority }, bytes);
    const body = outgoing.body === null || chunks === null ? outgoing.body : feed(outgoing.body, chunks);
    return { ...outgoing, target, headers, body };
  }

  #outgoing(put: PutBody | null): Outgoing {
    const target = this.#target;
    if (put === null) return { target, headers: this.#headers, contentLength: 0, body: null };
    let headers = this.#headers;
    if (put.decoded) headers = withField(headers, "Content-Encoding", null);
    if (put.length !== this.#head.contentLength) {
      headers = withField(headers, "Content-Length", put.length === null ? null : String(put.length));
    }
    return { target, headers, contentLength: put.length, body: put.body };
  }
}

/** Without what would keep the answer from being looked into: codings that are not known, and extensions of WebSocket. */
function negotiated(fields: Fields, head: RequestHead): Fields {
  let output = fields;
  const codings = fieldValues(fields, "accept-encoding");
  if (codings.length > 0) {
    // a part of what is compressed cannot be decoded
    const ranged = fieldValues(fields, "range").length > 0;
    output = withField(output, "Accept-Encoding", ranged ? "identity" : acceptable(codings.join(", ")));
  }
  return head.webSocket ? withField(output, "Sec-WebSocket-Extensions", null) : output;
}

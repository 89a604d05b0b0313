import { isDeepStrictEqual } from "node:util";
import type { Duplex, Readable } from "node:stream";
import type { EgressClient } from "../egress-client.js";
import { SecretRefusal } from "../secrets/secret-refusal.js";
import type { RequestHead, RequestSubstitution, ScrubbedAnswer } from "../secrets/substitution.js";
import type { SecretSet } from "../secrets/secret-set.js";
import type { Connection } from "./connection.js";
import { without } from "./http-fields.js";
import type { Asked, Fields, ReadFields } from "./message.js";
import type { Call } from "./upstream-call.js";

const maxPath = 1024;

/** What a request sends after its secrets were put in. */
export interface WithSecrets {
  readonly call: Call;
  readonly body: Readable | null;
}

/** One request of a sandbox that has secrets: what is put in, what is kept out, and what is told of it. */
export class SecretExchange {
  readonly #connection: Connection;
  readonly #client: EgressClient;
  readonly #set: SecretSet;
  readonly #asked: Asked;
  readonly #head: RequestHead;
  readonly #time = new Date();
  #substitution: RequestSubstitution | null = null;
  /** whether more may be put in */
  #open = true;
  #noted = false;

  private constructor(connection: Connection, client: EgressClient, { set, asked }: { set: SecretSet; asked: Asked }) {
    this.#connection = connection;
    this.#client = client;
    this.#set = set;
    this.#asked = asked;
    const { name, fields, path, method, secure, hasBody, contentLength, webSocket } = asked;
    const authority = fields.find(([field]) => field.toLowerCase() === "host")?.[1] ?? name;
    this.#head = {
      method,
      host: name,
      authority,
      secure,
      target: path,
      headers: fields,
      hasBody,
      contentLength,
      webSocket,
    };
  }

  /** Null for a sandbox without any. */
  static start(connection: Connection, client: EgressClient, asked: Asked): SecretExchange | null {
    const set = connection.uses.of(client);
    return set === null ? null : new SecretExchange(connection, client, { set, asked });
  }

  /** Whether it may go on with what a sandbox has now: what was put in is still the same, and nothing else can be. */
  readonly suits = (now: EgressClient): boolean => {
    if (now.secrets === this.#client.secrets) return true;
    const used = new Set(this.used);
    const before = this.#client.secrets.filter(({ name }) => this.#open || used.has(name));
    const names = new Set(before.map(({ name }) => name));
    return isDeepStrictEqual(
      before,
      now.secrets.filter(({ name }) => names.has(name)),
    );
  };

  get used(): readonly string[] {
    return this.#substitution?.used() ?? [];
  }

  get webSocket(): { readonly toServer: Duplex; readonly toClient: Duplex } | null {
    return this.#substitution?.webSocket ?? null;
  }

  /** What is to be sent, once it is known. Rejects with `SecretRefusal` or `UnreadableContent`. */
  async outgoing(body: Readable | null, sayContinue: () => void): Promise<WithSecrets> {
    const waiting = this.#set.ready(this.#head);
    if (waiting !== null) await waiting;
    const substitution = this.#set.request(this.#head);
    this.#substitution = substitution;
    const told = substitution.collects && this.#asked.expectsContinue;
    if (told) sayContinue();
    const { target, headers, contentLength, body: outgoing } = await substitution.send(body);
    if (outgoing === null && !this.#asked.webSocket) this.#open = false;
    const fields = told ? without(headers, "expect") : headers;
    const { method, webSocket, takesTrailers } = this.#asked;
    const call = {
      method,
      path: target,
      fields,
      hasBody: outgoing !== null,
      contentLength,
      webSocket,
      takesTrailers,
    };
    return { call, body: outgoing };
  }

  trailers(fields: ReadFields): Fields {
    const trailers = this.#substitution?.trailers(fields) ?? [];
    this.#open = false;
    return trailers;
  }

  /** Whether to ask again after a 401, with a token that is new by now. */
  renew(): Promise<boolean> {
    return this.#substitution?.renew() ?? Promise.resolve(false);
  }

  answerHead(status: number, fields: ReadFields, hasBody: boolean): ScrubbedAnswer {
    return this.#scrub.head(status, fields, hasBody);
  }

  answerText(text: string): string {
    return this.#scrub.text(text);
  }

  answerTrailers(fields: ReadFields): Fields {
    return this.#scrub.trailers(fields);
  }

  /** Tells of what was put in; once. */
  noteSent(status: number | null, bytes: number): void {
    if (this.#noted) return;
    this.#noted = true;
    for (const { secret, locations: places } of this.#substitution?.uses() ?? []) {
      const locations = places.flatMap((place) => (place === "signature" ? [] : [place]));
      this.#note({ secret, locations, status, bytes, allowed: true, reason: null });
    }
  }

  /** Tells of what was not sent. */
  noteRefused({ secret, where, reason }: SecretRefusal): void {
    this.#noted = true;
    const locations = where === "signature" || where === "token" ? [] : [where];
    this.#note({ secret, locations, status: null, bytes: 0, allowed: false, reason });
  }

  get #scrub(): RequestSubstitution["answer"] {
    if (this.#substitution === null) throw new Error("an answer to what was not sent");
    return this.#substitution.answer;
  }

  #note(what: Omit<Parameters<Connection["uses"]["note"]>[0], "time" | "sandbox" | "host" | "method" | "path">): void {
    const { name: host, method, path } = this.#asked;
    const { sandbox } = this.#connection;
    const time = this.#time.toISOString();
    this.#connection.uses.note({ time, sandbox, host, method, path: path.slice(0, maxPath), ...what });
  }
}

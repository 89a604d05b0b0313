import type { Duplex, Readable } from "node:stream";
import { SecretRefusal, UnreadableContent } from "../secrets/secret-refusal.js";
import type { Connection, Flow } from "./connection.js";
import { DialFailed, DialRefused } from "./dial.js";
import { connectTo } from "./host.js";
import { BadRequest, type Answer, type AnswerHead, type Asked, type ClientSide } from "./message.js";
import { SecretExchange } from "./secret-exchange.js";
import { joinStreams, pipeBody } from "./streams.js";
import type { Timings } from "./timings.js";
import { TlsFailed, UntrustedServer } from "./tls-client.js";
import { BadAnswer, type Call, type UpstreamCall } from "./upstream-call.js";
import type { Upstreams } from "./upstreams.js";

/** informational answers to one request: nothing holds a server back that sends them to a client that reads none */
const maxInformational = 16;
/** asked again where a kept connection turns out to be closed */
const repeatable = new Set(["GET", "HEAD", "OPTIONS"]);
const bodiless = new Set([204, 304]);

export interface ExchangeOptions {
  readonly timings: Timings;
  readonly upstreams: Upstreams;
  /** whether the client speaks HTTP/2 */
  readonly http2: boolean;
}

interface Sending {
  readonly call: Call;
  readonly body: Readable | null;
  /** whether it may be sent once more, should a kept connection turn out to be closed */
  readonly again: boolean;
}

/** One request and its answer: decided on, passed on, and kept track of until both are through. */
export class Exchange {
  readonly #connection: Connection;
  readonly #client: ClientSide;
  readonly #options: ExchangeOptions;
  #asked: Asked | null = null;
  #flow: Flow | null = null;
  #secrets: SecretExchange | null = null;
  #call: UpstreamCall | null = null;
  #rule = "";
  #decided = false;
  #answered = false;
  /** the answer arrived as a whole, so that its connection may serve another request */
  #complete = false;
  #renewed = false;
  #status: number | null = null;
  #bytes = 0;
  #informational = 0;

  constructor(connection: Connection, client: ClientSide, options: ExchangeOptions) {
    this.#connection = connection;
    this.#client = client;
    this.#options = options;
  }

  /** Decides on the request and passes it on, or says why not. False where nothing after it on its connection can be trusted. */
  start(): boolean {
    let asked: Asked;
    try {
      asked = this.#client.read();
    } catch (error) {
      if (!(error instanceof BadRequest)) throw error;
      this.#refuse(error.message, { status: error.status });
      return false;
    }
    this.#asked = asked;
    const { name, port } = asked;
    const now = this.#connection.now();
    if (now === null) return false;
    const verdict = connectTo(now.policy, asked);
    if (!verdict.allowed) {
      this.#refuse(verdict.rule, { status: 403 });
      return true;
    }
    this.#rule = verdict.rule;
    this.#secrets = SecretExchange.start(this.#connection, now, asked);
    const secrets = this.#secrets;
    this.#flow = { name, port, address: null, suits: secrets?.suits ?? null };
    this.#connection.flows.add(this.#flow);
    this.#client.onClose(() => this.#end());
    const body = asked.hasBody ? this.#client.body : null;
    if (secrets === null) this.#send({ call: asked, body, again: mayRepeat(asked) });
    else void this.#sendWith(secrets, body);
    return true;
  }

  async #sendWith(secrets: SecretExchange, body: Readable | null): Promise<void> {
    try {
      const outgoing = await secrets.outgoing(body, () =>
        this.#client.inform({ status: 100, text: "Continue", fields: [] }),
      );
      if (this.#client.gone) outgoing.body?.destroy();
      else this.#send({ call: outgoing.call, body: outgoing.body, again: mayRepeat(outgoing.call) });
    } catch (error) {
      this.#failed(error as Error);
    }
  }

  #send(sending: Sending): void {
    const { call, body, again } = sending;
    const [flow, server] = [this.#flow, this.#asked];
    if (flow === null || server === null) return;
    // it is read already: what must not go on shows up before there is a connection, too
    if (body !== null && body.errored !== null) {
      this.#failed(body.errored);
      return;
    }
    body?.once("error", (error) => this.#failed(error));
    const { timings, upstreams, http2 } = this.#options;
    const wanted = { server, call, keep: again, http2 };
    let current: UpstreamCall | null = null;
    upstreams.call(this.#connection, flow, wanted, {
      started: (started) => {
        current = started;
        this.#call = started;
        if (this.#client.gone || body?.destroyed === true) started.destroy();
        else this.#sendBody(started, body);
      },
      connected: (address) => {
        if (this.#client.gone) {
          this.#call?.destroy();
          return;
        }
        flow.address = address;
        this.#decide();
        this.#call?.allowSilence(timings.answer);
      },
      informed: (head) => this.#inform(head),
      answered: (answer) => void this.#answer(answer, sending),
      changedOver: (head, stream, first) => this.#changeOver(head, stream, first),
      silent: () => {
        if (!this.#answered) this.#fail(504, "no answer in time");
      },
      failed: (error) => {
        if (current !== null && current !== this.#call) return; // that was given up for another one
        if (again && this.#call?.reused === true && !this.#answered && !this.#client.gone)
          this.#send({ call, body, again: false });
        else this.#failed(error);
      },
    });
  }

  #sendBody(call: UpstreamCall, body: Readable | null): void {
    if (body === null) {
      call.end([]);
      return;
    }
    pipeBody(body, null, call.body, {
      passed: (bytes) => (this.#bytes += bytes),
      ended: () => {
        if (!this.#client.isWhole()) {
          call.destroy();
          return;
        }
        try {
          const trailers = this.#client.trailers();
          call.end(this.#secrets?.trailers(trailers) ?? trailers);
        } catch (error) {
          this.#failed(error as Error);
        }
      },
      failed: (error) => this.#failed(error),
    });
  }

  #inform({ status, text, fields }: AnswerHead): void {
    if (this.#answered || this.#client.gone) return;
    this.#informational += 1;
    if (this.#informational > maxInformational) {
      this.#fail(502, "too many informational answers");
      return;
    }
    try {
      this.#client.inform(this.#scrubbed({ status, text, fields }, false));
    } catch (error) {
      this.#failed(error as Error);
    }
  }

  async #answer(answer: Answer, sending: Sending): Promise<void> {
    answer.body.on("error", () => this.#broken());
    if (answer.status === 401 && (await this.#renew(sending))) {
      answer.body.resume();
      return;
    }
    if (this.#client.gone || this.#answered) return;
    const hasBody = this.#asked?.method !== "HEAD" && !bodiless.has(answer.status) && !answer.ends;
    let scrubbed;
    try {
      scrubbed = this.#scrubbed(answer, hasBody);
    } catch (error) {
      this.#failed(error as Error);
      return;
    }
    this.#call?.allowSilence(0);
    this.#status = answer.status;
    this.#answered = true;
    const { mayHaveTrailers, ends } = answer;
    if (!this.#client.answer(scrubbed, { mayHaveTrailers, ends })) {
      this.#answered = false;
      this.#fail(502, "an answer that cannot be passed on");
      return;
    }
    pipeBody(answer.body, scrubbed.body, this.#client.sink, {
      ended: () => {
        if (!answer.isWhole()) {
          this.#broken();
          return;
        }
        this.#complete = true;
        const trailers = mayHaveTrailers ? answer.trailers() : [];
        this.#client.end(this.#secrets?.answerTrailers(trailers) ?? trailers);
      },
      failed: () => this.#broken(),
    });
  }

  /** Whether it is asked again, since a token was refused that can be renewed. */
  async #renew({ body, call }: Sending): Promise<boolean> {
    const secrets = this.#secrets;
    if (secrets === null || body !== null || call.webSocket || this.#renewed || secrets.used.length === 0) return false;
    this.#renewed = true;
    try {
      if (!(await secrets.renew()) || this.#client.gone) return false;
    } catch {
      return false; // the answer that there is says it
    }
    this.#call = null;
    void this.#sendWith(secrets, null);
    return true;
  }

  #scrubbed({ status, text, fields }: AnswerHead, hasBody: boolean): AnswerHead & { body: Scrub } {
    const secrets = this.#secrets;
    if (secrets === null) return { status, text, fields, body: null };
    const { headers, body } = secrets.answerHead(status, fields, hasBody);
    return { status, text: secrets.answerText(text), fields: headers, body };
  }

  #changeOver(head: AnswerHead, server: Duplex, first: Buffer): void {
    if (this.#asked?.webSocket !== true || this.#client.gone) {
      server.destroy();
      this.#fail(502, "a change of protocol that nobody asked for");
      return;
    }
    let answer: AnswerHead;
    try {
      answer = this.#scrubbed(head, false);
    } catch (error) {
      server.destroy();
      this.#failed(error as Error);
      return;
    }
    this.#answered = true;
    this.#status = head.status;
    this.#connection.attach(server);
    const client = this.#client.changeOver(answer);
    if (first.length > 0) server.unshift(first);
    const flow = this.#flow;
    joinStreams(client, server, this.#secrets?.webSocket ?? null, {
      failed: (error) => this.#noteRefusal(error),
      closed: () => {
        if (flow !== null) this.#connection.flows.delete(flow);
        this.#secrets?.noteSent(this.#status, this.#bytes);
      },
    });
  }

  #failed(error: Error): void {
    this.#noteRefusal(error);
    const refusal = refusalOf(error);
    if (refusal !== null) this.#refuse(refusal.rule, refusal);
    else if (error instanceof DialFailed) {
      if (error.reason !== "gone") this.#fail(error.reason === "too slow" ? 504 : 502, error.reason);
    } else this.#fail(502, causeOf(error));
  }

  #noteRefusal(error: Error): void {
    if (error instanceof SecretRefusal) this.#secrets?.noteRefused(error);
  }

  /** The server is at fault. */
  #fail(status: number, why: string): void {
    if (this.#client.gone) return;
    this.#decide();
    if (this.#answered || this.#client.answered) this.#broken();
    else this.#say(status, `cannot reach ${this.#asked?.name ?? ""} (${why})`);
  }

  /** Half an answer must not pass for a whole one. */
  #broken(): void {
    this.#call?.destroy();
    this.#client.cut();
  }

  #refuse(rule: string, what: { status: number; address?: string | null; text?: string }): void {
    if (this.#flow !== null) this.#connection.flows.delete(this.#flow);
    const [name, port] = [this.#asked?.name ?? null, this.#asked?.port];
    const decided = { name, address: what.address ?? null, allowed: false, rule };
    this.#connection.decide(port === undefined ? decided : { ...decided, port });
    if (this.#answered || this.#client.answered) this.#broken();
    else
      this.#say(
        what.status,
        what.text ?? `${name === null ? "the request" : `egress to ${name}`} is not allowed (${rule})`,
      );
  }

  #say(status: number, text: string): void {
    this.#call?.destroy();
    this.#client.say(status, text);
  }

  #decide(): void {
    if (this.#decided || this.#flow === null) return;
    this.#decided = true;
    const { name, port, address } = this.#flow;
    this.#connection.decide({ name, port, address, allowed: true, rule: this.#rule });
  }

  /** The answer was sent, or the client is gone. */
  #end(): void {
    if (this.#flow !== null) this.#connection.flows.delete(this.#flow);
    if (this.#call?.sent !== true || !this.#complete) this.#call?.destroy();
    this.#secrets?.noteSent(this.#status, this.#bytes);
  }
}

type Scrub = ReturnType<SecretExchange["answerHead"]>["body"];

function mayRepeat({ method, hasBody, webSocket }: Call): boolean {
  return repeatable.has(method) && !hasBody && !webSocket;
}

function refusalOf(error: Error): { status: number; rule: string; address?: string | null; text?: string } | null {
  if (error instanceof DialRefused) return { status: 403, rule: error.rule, address: error.address };
  if (error instanceof BadRequest) return { status: error.status, rule: error.message };
  if (error instanceof SecretRefusal)
    return { status: 403, rule: `secret ${error.secret}: ${error.reason}`, text: error.message };
  if (error instanceof UnreadableContent && error.side === "client")
    return { status: 400, rule: error.message, text: error.message };
  return null;
}

function causeOf(error: Error): string {
  const own = [BadAnswer, UntrustedServer, TlsFailed, UnreadableContent];
  return own.some((type) => error instanceof type) ? error.message : "the connection broke";
}

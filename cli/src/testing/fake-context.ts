import { Readable } from "node:stream";
import { buffer } from "node:stream/consumers";

import { Client, type Transport, type TransportReply, type TransportRequest } from "@squash/sdk";

import { makeColors } from "../colors.js";
import type { Context } from "../context.js";
import { runProgram } from "../program.js";

/** One route and what it answers: JSON, nothing (204), or what a function of the request throws or returns. */
export type FakeRoutes = Readonly<Record<string, unknown>>;

/** An answer with another status than 200. */
export class FakeReply {
  readonly status: number;
  readonly body: unknown;

  constructor(status: number, body: unknown) {
    this.status = status;
    this.body = body;
  }
}

/** What one run of `sq` did. */
export interface FakeRun {
  status: number;
  stdout: string;
  stderr: string;
  /** `METHOD /path body`, in order */
  requests: string[];
  /** arguments of squashd's program, in order */
  squashd: (readonly string[])[];
}

export interface FakeOptions {
  routes?: FakeRoutes;
  input?: string | Buffer | Readable;
  signal?: AbortSignal;
  /** whether standard error is a terminal */
  isTerminal?: boolean;
  /** what `squashd` prints */
  output?: string;
  /** what `squashd` exits with */
  daemonStatus?: number;
}

/** Runs `sq` against a daemon of prepared answers; an unexpected request fails. For tests. */
export async function runFake(args: readonly string[], options: FakeOptions = {}): Promise<FakeRun> {
  const { routes = {}, input = "", signal = new AbortController().signal } = options;
  const run: FakeRun = { status: 0, stdout: "", stderr: "", requests: [], squashd: [] };
  const transport = fakeTransport(routes, run.requests);
  const context: Omit<Context, "exit"> = {
    client: () => new Client({ transport }),
    squashd: {
      run: (words) => Promise.resolve(run.squashd.push(words)).then(() => options.daemonStatus ?? 0),
      read: (words) => Promise.resolve(run.squashd.push(words)).then(() => options.output ?? ""),
    },
    stdin: () => (input instanceof Readable ? input : Readable.from([Buffer.from(input)])),
    stdout: { write: (text) => (run.stdout += text) },
    stderr: { write: (text) => (run.stderr += text) },
    isTerminal: options.isTerminal ?? false,
    colors: makeColors(false),
    signal,
    now: () => new Date("2026-01-01T00:10:00Z"),
  };
  run.status = await runProgram(args, context);
  return run;
}

function fakeTransport(routes: FakeRoutes, requests: string[]): Transport {
  return { address: "fake:", send, close: () => undefined };

  async function send(request: TransportRequest): Promise<TransportReply> {
    request.signal?.throwIfAborted();
    const route = `${request.method} ${request.path}`;
    const sent = typeof request.body === "object" ? (await buffer(request.body)).toString() : request.body;
    requests.push(sent === undefined ? route : `${route} ${sent}`);
    const key = Object.keys(routes).find((pattern) => new RegExp(`^${pattern}$`).test(route));
    if (key === undefined) throw new Error(`unexpected request ${route}`);
    const prepared = routes[key];
    const answer: unknown = typeof prepared === "function" ? await prepared(request) : prepared;
    if (answer === undefined) return { status: 204, contentType: "", text: "" };
    if (typeof answer === "string") return { status: 200, contentType: "text/plain", text: answer };
    const { status, body } = answer instanceof FakeReply ? answer : { status: 200, body: answer };
    return { status, contentType: "application/json", text: JSON.stringify(body) };
  }
}

import { createSocket } from "node:dgram";
import { connect, createServer, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import { decode, encode, streamDecode, streamEncode, type Packet, type RecordType } from "dns-packet";

/**
 * What a test does in a network namespace, as a process in it: see insider.ts. Every task has an end and a bounded result, whatever is at
 * the other end.
 */

export type Task =
  | {
      readonly op: "lookup";
      readonly name: string;
      readonly type: RecordType;
      readonly server: string;
      readonly protocol: "tcp" | "udp";
    }
  /** sends bytes, which are in base64, in pieces of so many where that is not 0; with `until`, that text ends it */
  | {
      readonly op: "talk";
      readonly address: string;
      readonly port: number;
      readonly bytes: string;
      readonly pieces: number;
      readonly until: string;
    }
  | {
      readonly op: "tls";
      readonly address: string;
      readonly port: number;
      readonly serverName: string;
      readonly ca: string;
    }
  | { readonly op: "udp"; readonly address: string; readonly port: number; readonly text: string }
  /** asks for many names at once without waiting for answers; again and again where `everyMs` is not 0 */
  | {
      readonly op: "burst";
      readonly names: readonly string[];
      readonly server: string;
      readonly forMs: number;
      readonly everyMs: number;
    }
  /** opens connections that say nothing */
  | { readonly op: "hold"; readonly address: string; readonly port: number; readonly count: number }
  | { readonly op: "listen"; readonly port: number }
  | { readonly op: "loop"; readonly name: string; readonly server: string; readonly ca: string }
  | { readonly op: "loop-end" };

export interface LoopResult {
  readonly rounds: number;
  readonly failures: readonly string[];
}

const talkMs = 1_500;
/** of a client that must not be disturbed */
const patienceMs = 5_000;
const pauseMs = 150;
const maxText = 65_536;
const held: Socket[] = [];
let loop: { end: boolean; done: Promise<LoopResult> } | null = null;

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
const codeOf = (error: Error): string => (error as NodeJS.ErrnoException).code ?? error.message;

/** What is in an answer: the code, then the data of all records. */
function read({ flags = 0, answers = [] }: Packet): string {
  const codes: Readonly<Record<number, string>> = { 0: "NOERROR", 2: "SERVFAIL", 3: "NXDOMAIN", 5: "REFUSED" };
  const data = answers.map((answer) => ("data" in answer && typeof answer.data === "string" ? answer.data : "?"));
  return [codes[flags & 15] ?? `code ${flags & 15}`, ...data].join(" ");
}

function query(name: string, type: RecordType): Buffer {
  return encode({
    type: "query",
    id: Math.floor(Math.random() * 65_536),
    flags: 256,
    questions: [{ type, name, class: "IN" }],
  });
}

function lookup({ name, type, server, protocol }: Task & { op: "lookup" }, ms = talkMs): Promise<string> {
  return protocol === "udp" ? lookupByUdp(name, type, server, ms) : lookupByTcp(name, type, server, ms);
}

async function lookupByUdp(name: string, type: RecordType, server: string, ms: number): Promise<string> {
  const answer = await datagram(server, 53, query(name, type), ms);
  return typeof answer === "string" ? answer : read(decode(answer));
}

async function lookupByTcp(name: string, type: RecordType, server: string, ms: number): Promise<string> {
  const question: Packet = { type: "query", id: 1, flags: 256, questions: [{ type, name, class: "IN" }] };
  const { data, end } = await talk(server, 53, streamEncode(question), { ms, enough: (got) => isWhole(got) });
  return isWhole(data) ? read(streamDecode(data)) : end;
}

function isWhole(data: Buffer): boolean {
  return data.length >= 2 && data.length >= 2 + data.readUInt16BE(0);
}

/** The answer, or an error's code, or "silence". */
function datagram(address: string, port: number, message: Buffer, ms: number): Promise<Buffer | string> {
  return new Promise((resolve) => {
    const socket = createSocket("udp4");
    const finish = (result: Buffer | string): void => {
      clearTimeout(timer);
      socket.removeAllListeners().on("error", () => undefined);
      socket.close();
      resolve(result);
    };
    const timer = setTimeout(() => finish("silence"), ms);
    socket.once("error", (error) => finish(codeOf(error)));
    socket.once("message", (data) => finish(data));
    // connected, so that refusals by ICMP are heard
    socket.connect(port, address, () => socket.send(message));
  });
}

interface TalkOptions {
  readonly ms: number;
  readonly pieces?: number;
  readonly enough?: (data: Buffer) => boolean;
}

/** All that the other side sent, and how it ended: "end", "silence", or an error's code. */
function talk(
  address: string,
  port: number,
  bytes: Buffer,
  { ms, pieces = 0, enough }: TalkOptions,
): Promise<{ data: Buffer; end: string }> {
  return new Promise((resolve) => {
    let data = Buffer.alloc(0);
    const socket = connect({ host: address, port, noDelay: true });
    const finish = (end: string): void => {
      clearTimeout(timer);
      socket.removeAllListeners().on("error", () => undefined);
      socket.destroy();
      resolve({ data, end });
    };
    const timer = setTimeout(() => finish("silence"), ms);
    socket.on("error", (error) => finish(codeOf(error)));
    socket.on("end", () => finish("end"));
    socket.on("data", (chunk: Buffer) => {
      data = Buffer.concat([data, chunk]);
      if (enough?.(data) === true) finish("enough");
      else if (data.length > maxText) finish("too much");
    });
    socket.on("connect", () => void send(socket, bytes, pieces));
  });
}

async function send(socket: Socket, bytes: Buffer, pieces: number): Promise<void> {
  if (pieces === 0) {
    socket.write(bytes);
    return;
  }
  for (let at = 0; at < bytes.length && socket.writable; at += pieces) {
    socket.write(bytes.subarray(at, at + pieces));
    await new Promise((resolve) => setImmediate(resolve));
  }
}

/** The body that a TLS server sends, whose key must be the one of `ca`; or an error's code. An empty name is none. */
function tls({ address, port, serverName, ca }: Task & { op: "tls" }, ms = talkMs): Promise<string> {
  return new Promise((resolve) => {
    let text = "";
    const socket = connectTls({
      host: address,
      port,
      servername: serverName,
      ca,
      checkServerIdentity: () => undefined,
      minVersion: "TLSv1.2",
    });
    const finish = (result: string): void => {
      clearTimeout(timer);
      socket.removeAllListeners().on("error", () => undefined);
      socket.destroy();
      resolve(result);
    };
    const timer = setTimeout(() => finish("silence"), ms);
    socket.on("error", (error: Error) => finish(codeOf(error)));
    socket.on("end", () => finish(text.split("\r\n\r\n")[1]?.trim() ?? "end"));
    socket.on("data", (chunk: Buffer) => (text = (text + chunk.toString("latin1")).slice(0, maxText)));
    socket.on("secureConnect", () => socket.write("GET / HTTP/1.0\r\n\r\n"));
  });
}

/** How many answers came. */
async function burst({ names, server, forMs, everyMs }: Task & { op: "burst" }): Promise<number> {
  const socket = createSocket("udp4");
  let answers = 0;
  socket.on("error", () => undefined);
  socket.on("message", () => (answers += 1));
  await new Promise<void>((resolve) => socket.bind(0, resolve));
  const queries = names.map((name) => query(name, "A"));
  const ask = (): void => {
    for (const each of queries) socket.send(each, 53, server);
  };
  ask();
  const timer = everyMs === 0 ? undefined : setInterval(ask, everyMs);
  await sleep(forMs);
  clearInterval(timer);
  socket.close();
  return answers;
}

/** How many of them are still open after a while. */
async function hold({ address, port, count }: Task & { op: "hold" }): Promise<number> {
  for (let left = count; left > 0; left--) {
    const socket = connect({ host: address, port });
    socket.on("error", () => undefined);
    held.push(socket);
  }
  await sleep(talkMs);
  return held.filter((socket) => socket.readyState === "open").length;
}

/** Answers every request at every address of the namespace. */
function listen({ port }: Task & { op: "listen" }): Promise<string> {
  const server = createServer((socket) => {
    socket.on("error", () => undefined);
    socket.once("data", () => socket.end("HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nhello from the host\n"));
  });
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, "0.0.0.0", () => resolve("listening"));
  });
}

/** What an ordinary program does, again and again: looks a name up, then talks to it in three ways. */
async function keepAsking({ name, server, ca }: Task & { op: "loop" }, state: { end: boolean }): Promise<LoopResult> {
  const failures: string[] = [];
  let rounds = 0;
  const wants = (what: string, got: string, wanted: RegExp): void => {
    if (!wanted.test(got) && failures.length < 20) failures.push(`${what}: ${got}`);
  };
  while (!state.end) {
    const found = await lookup({ op: "lookup", name, type: "A", server, protocol: "udp" }, patienceMs);
    wants("lookup", found, /^NOERROR \d/);
    const address = found.split(" ")[1] ?? "0.0.0.0";
    const request = Buffer.from(`GET /${rounds} HTTP/1.1\r\nHost: ${name}\r\nConnection: close\r\n\r\n`);
    const [web, secret, echo] = await Promise.all([
      talk(address, 80, request, { ms: patienceMs }),
      tls({ op: "tls", address, port: 443, serverName: name, ca }, patienceMs),
      talk(address, 7000, Buffer.alloc(0), { ms: patienceMs, enough: (data) => data.length > 4 }),
    ]);
    wants("http", `${web.end} ${web.data.toString("latin1")}`, /hello from .* to /);
    wants("tls", secret, /^secret hello/);
    wants("tcp", `${echo.end} ${echo.data.toString("latin1")}`, /echo/);
    rounds += 1;
    await sleep(pauseMs);
  }
  return { rounds, failures };
}

async function perform(task: Task): Promise<unknown> {
  switch (task.op) {
    case "lookup":
      return lookup(task);
    case "talk": {
      const { address, port, pieces, until } = task;
      const enough = (data: Buffer): boolean => until !== "" && data.includes(until);
      const { data, end } = await talk(address, port, Buffer.from(task.bytes, "base64"), {
        ms: talkMs,
        pieces,
        enough,
      });
      return { text: data.toString("latin1"), end };
    }
    case "tls":
      return tls(task);
    case "udp": {
      const answer = await datagram(task.address, task.port, Buffer.from(task.text), talkMs);
      return typeof answer === "string" ? answer : answer.toString("latin1");
    }
    case "burst":
      return burst(task);
    case "hold":
      return hold(task);
    case "listen":
      return listen(task);
    case "loop": {
      const state = { end: false };
      loop = Object.assign(state, { done: keepAsking(task, state) });
      return null;
    }
    case "loop-end":
      if (loop === null) throw new Error("there is no loop");
      loop.end = true;
      return loop.done;
  }
}

process.on("message", ({ id, task }: { id: number; task: Task }) => {
  perform(task).then(
    (result) => process.send?.({ id, result, error: null }),
    (error: unknown) => process.send?.({ id, result: null, error: String(error) }),
  );
});
process.on("disconnect", () => process.exit());
process.send?.({ id: 0, result: null, error: null });

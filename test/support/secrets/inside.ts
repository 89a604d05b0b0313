import type { Sandbox } from "@squash/sdk";

/** What talkAll() of inside/talk.mjs does. */
export interface Talk {
  readonly host: string;
  /** where it connects to, other than the name's own address */
  readonly address?: string;
  readonly port?: number;
  readonly tls?: boolean;
  readonly serverName?: string;
  /** whether the certificate is looked at */
  readonly verify?: boolean;
  /** empty for none */
  readonly alpn?: string;
  /** in latin1, written one after the other */
  readonly pieces: readonly string[];
  readonly pauseMs?: number;
  /** ends when this has come */
  readonly until?: string;
  /** of silence */
  readonly timeoutMs?: number;
  /** that it takes at most */
  readonly endMs?: number;
}

/** What came back, its beginning, and how it ended: "end", "close", "silence", "enough" or an error's code. */
export interface Talked {
  readonly text: string;
  readonly end: string;
  /** bytes in all */
  readonly total: number;
}

/** A request of askHttp2() of inside/h2.mjs. */
export interface Http2Request {
  readonly headers: Readonly<Record<string, string>>;
  readonly pieces?: readonly string[];
  readonly pauseMs?: number;
  readonly trailers?: Readonly<Record<string, string>>;
}

export interface Http2Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly text: string;
  readonly trailers: Readonly<Record<string, string>>;
  /** empty when all went well */
  readonly error: string;
}

export interface Fetched {
  /** 0 where there was no answer */
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly text: string;
  readonly pieces: readonly { readonly text: string; readonly ms: number }[];
  readonly error?: string;
}

export interface WebSocketTalk {
  /** an array is a message in fragments */
  readonly messages: readonly (string | readonly string[])[];
  readonly headers?: Readonly<Record<string, string>>;
  readonly deflate?: boolean;
}

export interface WebSocketTalked {
  readonly answers: readonly string[];
  readonly extensions: string;
  readonly closed: number;
  readonly error: string;
}

const clients = "/opt/clients";
const timeout = 30;

const socket = "/tmp/.clients.sock";
// where no secret is granted nothing names the authorities, and Node knows those of the web only
const trusting = "export NODE_EXTRA_CA_CERTS=${NODE_EXTRA_CA_CERTS:-/etc/ssl/certs/ca-certificates.crt}";
const local = `curl -sS --noproxy '*' --unix-socket ${socket}`;
/** Asks the server of clients, which is started where it does not run. */
const askClient = `${trusting}
alive() { ${local} -o /dev/null http://clients/ 2>/dev/null; }
alive || {
  node ${clients}/resident.mjs ${socket} >/dev/null 2>&1 &
  n=0; until alive; do n=$((n + 1)); [ $n -lt 500 ] || exit 90; sleep 0.02; done
}
exec ${local} --fail-with-body --data-binary @- "http://clients/$1"`;

/** Has a client of the base do a task; returns what came of it. Throws when it fails. */
const client = <T>(box: Sandbox, name: string, task: unknown): Promise<T> =>
  run(box, name, ["sh", "-c", askClient, "sh", name], JSON.stringify(task));

async function run<T>(box: Sandbox, name: string, command: readonly string[], stdin = ""): Promise<T> {
  const { exit_code, stdout, stderr } = await box.exec([...command], { stdin, timeout });
  if (exit_code !== 0) throw new Error(`${name} ended with status ${exit_code}: ${stderr}${stdout}`);
  return JSON.parse(stdout) as T;
}

/** All of them at once. */
export const talkAll = (box: Sandbox, tasks: readonly Talk[]): Promise<Talked[]> => client(box, "talk", tasks);

export async function talk(box: Sandbox, task: Talk): Promise<Talked> {
  const [result] = await talkAll(box, [task]);
  if (result === undefined) throw new Error("there is no result");
  return result;
}

export const fetchFrom = (box: Sandbox, url: string, init: Readonly<Record<string, unknown>> = {}): Promise<Fetched> =>
  run(box, "fetch", [
    "sh",
    "-c",
    `${trusting}; exec node "$@"`,
    "sh",
    `${clients}/fetch.mjs`,
    url,
    JSON.stringify(init),
  ]);

/** Requests one after the other on one connection to `host`. */
export const askHttp2 = (box: Sandbox, host: string, requests: readonly Http2Request[]): Promise<Http2Answer[]> =>
  client(box, "h2", { host, requests });

export const talkByWebSocket = (box: Sandbox, url: string, task: WebSocketTalk): Promise<WebSocketTalked> =>
  client(box, "websocket", { url, ...task });

/** What a command line of a shell printed to both outputs, with its exit code where that is not 0. */
export async function shell(box: Sandbox, line: string, timeoutS = timeout): Promise<string> {
  const { exit_code, stdout, stderr } = await box.exec(line, { timeout: timeoutS });
  return `${stdout}${stderr}${exit_code === 0 ? "" : `\nexit ${exit_code}`}`;
}

/** A request of HTTP/1.1 in lines. */
export const lines = (...all: readonly string[]): string => all.map((line) => `${line}\r\n`).join("");

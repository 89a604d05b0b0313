import { execFileSync } from "node:child_process";
import { createSocket } from "node:dgram";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer as createHttp } from "node:http";
import { createServer as createTcp, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createServer as createTls } from "node:tls";
import { decode, encode, streamDecode, type Answer, type Packet } from "dns-packet";

/**
 * The whole internet of the tests, as one process in a network namespace: see internet.ts. It tells its parent of everything that arrives,
 * and answers DNS from a table that the parent may replace.
 */

/** What a server saw. */
export interface Arrival {
  /** such as "http 93.184.216.34:80", and what was sent; for every connection to it there is one of "tcp 93.184.216.34:80" */
  readonly server: string;
  readonly detail: string;
  readonly from: string;
}

export type Zone = Readonly<Record<string, readonly Answer[]>>;

/** larger answers go by TCP only, as those of real servers do */
const maxUdpAnswer = 1232;

let zone: Zone = {};

function arrived(server: string, detail: string, from: string | undefined): void {
  process.send?.({ server, detail, from: from ?? "" } satisfies Arrival);
}

function certificate(): { key: string; cert: string } {
  const folder = mkdtempSync(join(tmpdir(), "sqt-tls-"));
  try {
    const [key, cert] = [join(folder, "key"), join(folder, "cert")];
    const subject = ["-subj", "/CN=internet.test", "-addext", "subjectAltName=DNS:*.example.org,DNS:*.other.net"];
    const kind = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
    execFileSync("openssl", [...kind, "-keyout", key, "-out", cert, ...subject], { stdio: "ignore" });
    return { key: readFileSync(key, "utf8"), cert: readFileSync(cert, "utf8") };
  } finally {
    rmSync(folder, { recursive: true });
  }
}

function answerTo(query: Packet): Buffer {
  const question = query.questions?.[0];
  const name = question?.name.toLowerCase() ?? "";
  const records = zone[name] ?? zone[`*.${name.split(".").slice(1).join(".")}`]?.map((each) => ({ ...each, name }));
  const known = records ?? [];
  const answers = known.filter(({ type }) => type === question?.type || type === "CNAME");
  // what an alias stands for comes along, as from a real server
  for (const answer of answers)
    if (answer.type === "CNAME")
      answers.push(...(zone[answer.data] ?? []).filter(({ type }) => type === question?.type));
  return encode({
    type: "response",
    id: query.id ?? 0,
    flags: 1024 | (records === undefined ? 3 : 0),
    questions: query.questions ?? [],
    answers,
  });
}

function lengthFirst(message: Buffer): Buffer {
  const length = Buffer.alloc(2);
  length.writeUInt16BE(message.length);
  return Buffer.concat([length, message]);
}

function serveDns(address: string): void {
  const udp = createSocket("udp4");
  udp.on("message", (message, { address: from, port }) => {
    const query = decode(message);
    arrived(`dns ${address}`, query.questions?.[0]?.name ?? "", from);
    const answer = answerTo(query);
    const cut = { type: "response", id: query.id ?? 0, flags: 1024 | 512, questions: query.questions ?? [] } as const;
    udp.send(answer.length > maxUdpAnswer ? encode(cut) : answer, port, from);
  });
  udp.bind(53, address);
  createTcp((socket) => {
    socket.on("error", () => undefined);
    socket.on("data", (data) => {
      const query = streamDecode(data);
      arrived(`dns-tcp ${address}`, query.questions?.[0]?.name ?? "", socket.remoteAddress);
      socket.end(lengthFirst(answerTo(query)));
    });
  }).listen(53, address);
}

/** Takes what is not quite HTTP for HTTP, as the servers do that requests are smuggled to. */
function serveHttp(address: string, port: number): void {
  createHttp({ insecureHTTPParser: true }, (request, response) => {
    const host = request.headers.host ?? "";
    arrived(`http ${address}:${port}`, `${host} ${request.url ?? ""}`, request.socket.remoteAddress);
    request.resume();
    if (request.url === "/stream") {
      const timer = setInterval(() => response.write("more\n"), 5);
      response.on("close", () => clearInterval(timer));
      return;
    }
    request.on("end", () => response.end(`hello from ${address}:${port} to ${host}\n`));
  })
    .on("connection", (socket) => arrived(`tcp ${address}:${port}`, "", socket.remoteAddress))
    .on("connect", (request, socket) => {
      arrived(`connect ${address}:${port}`, request.url ?? "", request.socket.remoteAddress);
      socket.end("HTTP/1.1 200 OK\r\n\r\n");
    })
    .listen(port, address);
}

function serveTls(address: string, port: number, pair: { key: string; cert: string }): void {
  createTls({ ...pair }, (socket) => {
    socket.on("error", () => undefined);
    arrived(`tls ${address}:${port}`, socket.servername || "", socket.remoteAddress);
    socket.once("data", () =>
      socket.end(`HTTP/1.0 200 OK\r\n\r\nsecret hello from ${address} as ${String(socket.servername)}\n`),
    );
  })
    .on("connection", (socket: Socket) => arrived(`tcp ${address}:${port}`, "", socket.remoteAddress))
    .on("tlsClientError", () => undefined)
    .listen(port, address);
}

/** Says its address, then sends back what it gets. */
function serveEcho(address: string, port: number): void {
  createTcp((socket) => {
    arrived(`tcp ${address}:${port}`, "", socket.remoteAddress);
    socket.on("error", () => undefined);
    socket.write(`echo ${address}:${port}\n`);
    socket.pipe(socket);
  }).listen(port, address);
}

function serveUdpEcho(address: string, port: number): void {
  const udp = createSocket("udp4");
  udp.on("message", (message, { address: from, port: to }) => {
    arrived(`udp ${address}:${port}`, message.toString("latin1").slice(0, 80), from);
    udp.send(message, to, from);
  });
  udp.bind(port, address);
}

const { dns, web, echo, udpEcho } = JSON.parse(process.argv[2] ?? "{}") as {
  dns: string[];
  web: string[];
  echo: [string, number][];
  udpEcho: [string, number][];
};
const pair = certificate();
for (const address of dns) serveDns(address);
for (const address of web) {
  serveHttp(address, 80);
  serveHttp(address, 8080);
  serveTls(address, 443, pair);
}
for (const [address, port] of echo) serveEcho(address, port);
for (const [address, port] of udpEcho) serveUdpEcho(address, port);
process.on("message", (message: Zone) => {
  zone = message;
  process.send?.({ server: "zone", detail: "", from: "" } satisfies Arrival);
});
process.on("disconnect", () => process.exit());
setTimeout(() => process.send?.({ server: "ready", detail: pair.cert, from: "" } satisfies Arrival), 200);

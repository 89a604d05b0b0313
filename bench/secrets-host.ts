import { createServer } from "node:https";
import { Agent, request } from "node:https";
import { join } from "node:path";
import { createSecureContext, connect, type TLSSocket } from "node:tls";
import type * as Pair from "../daemon/src/secrets/ca/authority-pair.js";
import type * as Leaves from "../daemon/src/egress/tls/leaf-issuer.js";
import type * as Proxy from "../daemon/src/egress/proxy/egress-proxy.js";
import type * as Memory from "../daemon/src/buffer-memory.js";
import type { EgressPolicy } from "../daemon/src/core/egress/egress-policy.js";
import { repositoryRoot } from "../test/support/root.js";
import { rate, times } from "./stats.js";

/**
 * The parts of a measurement of secrets, one process each, with JSON for an argument: `authorities` makes two, `serve` is a server by TLS,
 * `proxy` is squashd's, alone, and `load` is a client, which prints what it measured.
 */
export interface HostArguments {
  readonly serverPort: number;
  readonly proxyPort: number;
  /** PEM, of the server's authority and of the proxy's */
  readonly server: Pair.AuthorityPair;
  readonly proxy: Pair.AuthorityPair;
  readonly name: string;
  readonly what: "latency" | "rate" | "first" | "large";
  readonly trusted: boolean;
}

const placeholder = "placeholder-of-the-token";
const [role = "", json = "{}"] = process.argv.slice(2);
const given = JSON.parse(json) as HostArguments;
const serverAddress = "127.0.1.1";
const clientAddress = "127.0.0.11";
const largeBytes = 2 * 1_073_741_824;
const clients = 16;
/** A daemon runs for weeks; until V8 has compiled what runs often, a request costs twice as much, and compiling as much again. */
const warmSeconds = 8;

const built = <T>(path: string): Promise<T> => import(join(repositoryRoot, "daemon/dist", path)) as Promise<T>;
const say = (value: unknown): void => void process.stdout.write(`${JSON.stringify(value)}\n`);

async function authorities(): Promise<void> {
  const { makePair } = await built<typeof Pair>("secrets/ca/authority-pair.js");
  say({ server: makePair(), proxy: makePair() });
}

async function serve(): Promise<void> {
  const { LeafIssuer } = await built<typeof Leaves>("egress/tls/leaf-issuer.js");
  const context = new LeafIssuer(given.server).contextFor("*.host.bench");
  const chunk = Buffer.alloc(262_144, "some text that is no secret at all, ");
  const server = createServer({ SNICallback: (_, done) => done(null, context) }, (asked, answer) => {
    if (asked.url !== "/large") {
      answer.end(asked.headers["x-token"]);
      return;
    }
    let left = largeBytes;
    answer.writeHead(200, { "Content-Type": "application/octet-stream", "Content-Length": largeBytes });
    const push = (): void => {
      while (left > 0) {
        left -= chunk.length;
        if (!answer.write(chunk)) {
          answer.once("drain", push);
          return;
        }
      }
      answer.end();
    };
    push();
  });
  server.listen({ host: "0.0.0.0", port: given.serverPort, backlog: 1024 }, () => say("ready"));
}

async function proxy(): Promise<void> {
  const { freeBuffersWhereMade } = await built<typeof Memory>("buffer-memory.js");
  freeBuffersWhereMade(); // as squashd does
  const { EgressProxy } = await built<typeof Proxy>("egress/proxy/egress-proxy.js");
  const allowed = { allowed: true, rule: "bench" };
  const policy = { connectByName: () => allowed, connectResolved: () => allowed } as unknown as EgressPolicy;
  const secret = {
    ...{ name: "TOKEN", placeholder, value: "value-of-the-token-0000000", allowedHosts: ["*.host.bench"] },
    ...{ allowedPaths: null, methods: null, locations: ["header" as const], injectHeader: null, allowPlaintext: false },
    ...{ elsewhere: "refuse" as const, sigv4: null, oauth2: null },
  };
  const client = { sandbox: "bench", address: clientAddress, policy, secrets: [secret], authority: given.proxy };
  const trusted = createSecureContext({ ca: given.server.certificatePem });
  const made = new EgressProxy({
    find: () => client,
    resolve: () => Promise.resolve([serverAddress]),
    audit: () => undefined,
    trusted: () => trusted,
    portOf: () => given.serverPort,
  });
  const { tlsPort } = await made.listen("127.0.0.1", null, { explicit: false });
  say(tlsPort);
}

class Dialer extends Agent {
  readonly #name: string;

  constructor(name: string) {
    super({ keepAlive: true });
    this.#name = name;
  }

  override createConnection(): TLSSocket {
    return connect({
      ...{ host: "127.0.0.1", port: given.proxyPort, localAddress: clientAddress, servername: this.#name },
      ca: [given.proxy.certificatePem, given.server.certificatePem],
      rejectUnauthorized: given.trusted,
    });
  }
}

function ask(agent: Agent, host: string, path = "/"): Promise<number> {
  return new Promise((resolve, reject) => {
    const asked = request({ agent, host, path, headers: { host, "x-token": placeholder } }, (answer) => {
      let size = 0;
      answer.on("data", (chunk: Buffer) => (size += chunk.length));
      answer.on("error", reject);
      answer.on("end", () => (answer.statusCode === 200 ? resolve(size) : reject(new Error(`${answer.statusCode}`))));
    });
    asked.on("error", reject);
    asked.end();
  });
}

async function load(): Promise<void> {
  const { name, what } = given;
  if (what === "first") {
    const once = async (round: number): Promise<void> => {
      const agent = new Dialer(`n${round}.${name}`);
      await ask(agent, `n${round}.${name}`);
      agent.destroy();
    };
    for (let round = 0; round < 200; round += 1) await once(1_000 + round);
    say(await times(200, once));
    return;
  }
  const agent = new Dialer(name);
  if (what !== "large") await rate(clients, warmSeconds, () => ask(agent, name));
  if (what === "latency") say(await times(2_000, () => ask(agent, name)));
  else if (what === "rate") say(await rate(clients, 5, () => ask(agent, name)));
  else {
    const start = performance.now();
    const size = await ask(agent, name, "/large");
    say((size * 8) / (performance.now() - start) / 1e6);
  }
}

const roles: Readonly<Record<string, () => void | Promise<void>>> = { authorities, serve, proxy, load };
await roles[role]?.();
if (role === "load" || role === "authorities") process.exit();

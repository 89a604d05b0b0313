import { once } from "node:events";
import { createServer, type AddressInfo, type Server, type Socket } from "node:net";
import type { EgressClient, EgressDecision } from "../../egress-client.js";
import { EgressProxy, type EgressProxyOptions } from "../egress-proxy.js";
import type { Timings } from "../timings.js";
import { FakePolicy } from "./fake-policy.js";
import { Peer, connectFrom } from "./peer.js";

/** The addresses of two sandboxes. */
export const alice = "127.0.0.11";
export const bob = "127.0.0.12";

/** The addresses of servers, all on one port. */
export const first = "127.0.1.1";
export const second = "127.0.1.2";

export interface Bed {
  readonly proxy: EgressProxy;
  readonly clients: Map<string, EgressClient>;
  /** what names resolve to; each function is asked each time */
  readonly names: Map<string, () => readonly string[] | Promise<readonly string[]>>;
  readonly decisions: EgressDecision[];
  readonly httpPort: number;
  readonly tlsPort: number;
  readonly explicitPort: number;
  /** where servers listen, on addresses of 127.0.1.0/24 */
  readonly port: number;
  http(from?: string): Promise<Peer>;
  tls(from?: string): Promise<Peer>;
  /** Sets the policy of a sandbox, and rechecks. */
  allow(address: string, names: readonly string[], refusedAddresses?: readonly string[]): void;
  /** What was decided, as `name address allowed rule`. */
  log(): string[];
  /** Listens on one address, or with another server, until the bed is closed. */
  serve(address: string, server: Server): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** A proxy with two sandboxes that may reach a.test on `first` and b.test on `second`, but not c.test, which is on `first`, too. */
export async function makeBed(timings: Partial<Timings> = {}, options: Partial<EgressProxyOptions> = {}): Promise<Bed> {
  const port = await freePort();
  const clients = new Map<string, EgressClient>();
  const names: Bed["names"] = new Map();
  const decisions: EgressDecision[] = [];
  const servers: { server: Server; sockets: Set<Socket> }[] = [];
  const proxy = new EgressProxy({
    find: (address) => clients.get(address),
    resolve: async (name) => (await names.get(name)?.()) ?? [],
    audit: (decision) => decisions.push(decision),
    portOf: (asked) => (asked === 80 || asked === 443 ? port : asked),
    timings: { linger: 200, ...timings },
    ...options,
  });
  const ports = await proxy.listen("127.0.0.1", null, { explicit: true });
  for (const name of ["a.test", "c.test"]) names.set(name, () => [first]);
  names.set("b.test", () => [second]);
  const set = (address: string, policy: FakePolicy): void => {
    const sandbox = address === alice ? "alice" : "bob";
    clients.set(address, { sandbox, address, policy, secrets: [], authority: null });
  };
  for (const address of [alice, bob]) set(address, new FakePolicy(["a.test", "b.test"]));
  return {
    ...{ proxy, clients, names, decisions, ...ports, port },
    http: (from = alice) => connectFrom(from, ports.httpPort),
    tls: (from = alice) => connectFrom(from, ports.tlsPort),
    allow(address, allowed, refused) {
      set(address, new FakePolicy(allowed, refused));
      proxy.recheck(address);
    },
    log: () =>
      decisions.map(
        ({ name, address, allowed, rule }) => `${name} ${address} ${allowed ? "allowed" : "refused"} ${rule}`,
      ),
    async serve(address, server) {
      const sockets = new Set<Socket>();
      server.on("connection", (socket: Socket) => {
        sockets.add(socket);
        socket.on("error", () => undefined).on("close", () => sockets.delete(socket));
      });
      servers.push({ server, sockets });
      server.listen({ host: address, port, backlog: 1024 });
      await once(server, "listening");
    },
    async [Symbol.asyncDispose]() {
      await proxy.close();
      for (const { server, sockets } of servers) {
        server.close();
        for (const socket of sockets) socket.destroy();
      }
    },
  };
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, first);
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  return port;
}

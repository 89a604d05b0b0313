import { parentPort, workerData } from "node:worker_threads";
import type { PlaneCounters } from "../core/egress/plane.js";
import { parsePolicy } from "../core/egress/policy.js";
import { DnsServer } from "./dns/dns-server.js";
import { Resolver } from "./dns/resolver.js";
import type { EgressClient } from "./egress-client.js";
import { closedToOwn, OwnAddresses } from "./own-addresses.js";
import { EgressProxy } from "./proxy/egress-proxy.js";
import type { FromThread, ThreadData, ToThread } from "./thread-protocol.js";

/** The thread that parses what sandboxes send: it shares no event loop with the API, and holds no privilege that it uses. */
const port = parentPort;
if (port === null) throw new Error("this is a thread of squashd");
const { gateway, resolvConf, resolverPort, subnet, ports } = workerData as ThreadData;

const clients = new Map<string, EgressClient>();
const learning = new Map<number, { resolve: () => void; reject: (error: Error) => void }>();
let nextLearning = 1;

const send = (message: FromThread): void => port.postMessage(message);
const find = (address: string): EgressClient | undefined => clients.get(address);
const own = new OwnAddresses();
const resolver = new Resolver({ path: resolvConf, port: resolverPort });

const dns = new DnsServer({
  find,
  resolver,
  ipv6: false,
  learn: (client, name, answer) =>
    new Promise((resolve, reject) => {
      const id = nextLearning++;
      learning.set(id, { resolve, reject });
      send({ type: "learn", id, client: client.address, name, answer });
    }),
  audit: (decision) => send({ type: "decided", decision }),
  report: (error) => send({ type: "report", error: error.message }),
});

const proxy = new EgressProxy({
  find,
  resolve: async (name) => {
    const found = await resolver.addresses(name, 4);
    return "addresses" in found ? found.addresses : [];
  },
  audit: (decision) => send({ type: "decided", decision }),
});

function counters(address: string): PlaneCounters {
  const asked = dns.counters(address);
  const connected = proxy.counters(address);
  return {
    dnsAllowed: asked.allowed,
    dnsRefused: asked.refused,
    dnsLimited: asked.limited,
    openConnections: connected.open,
    refusedConnections: connected.refused,
  };
}

function forget(address: string): void {
  clients.delete(address);
  proxy.forget(address);
  dns.forget(address);
}

async function serve(message: Exclude<ToThread, { type: "learned" }>): Promise<PlaneCounters | null> {
  switch (message.type) {
    case "set": {
      const { sandbox, address, spec } = message.client;
      const known = clients.get(address);
      // an address passes on with its number: nothing of the one before is to be seen
      if (known !== undefined && known.sandbox !== sandbox) forget(address);
      clients.set(address, { sandbox, address, policy: closedToOwn(parsePolicy(spec, { subnets: [subnet] }), own) });
      if (known !== undefined) proxy.recheck(address);
      return null;
    }
    case "remove":
      forget(message.address);
      return null;
    case "counters":
      return counters(message.address);
    case "close":
      await Promise.all([dns.close(), proxy.close()]);
      return null;
  }
}

port.on("message", (message: ToThread) => {
  if (message.type === "learned") {
    const waiting = learning.get(message.id);
    learning.delete(message.id);
    if (message.error === null) waiting?.resolve();
    else waiting?.reject(new Error(message.error));
    return;
  }
  serve(message).then(
    (found) => send({ type: "done", id: message.id, counters: found, error: null }),
    (error: unknown) => send({ type: "done", id: message.id, counters: null, error: String(error) }),
  );
});

const dnsPorts = await dns.listen(
  gateway,
  ports === null ? undefined : { udpPort: ports.dnsUdp, tcpPort: ports.dnsTcp },
);
const proxyPorts = await proxy.listen(
  gateway,
  ports === null ? undefined : { httpPort: ports.http, tlsPort: ports.tls },
);
send({
  type: "ready",
  ports: { dnsUdp: dnsPorts.udpPort, dnsTcp: dnsPorts.tcpPort, http: proxyPorts.httpPort, tls: proxyPorts.tlsPort },
});

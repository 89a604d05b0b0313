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
const { gateway, gateway6, resolvConf, resolverPort, subnets, ports } = workerData as ThreadData;

/** by address, those with IPv6 twice */
const clients = new Map<string, EgressClient>();
/** by the address by which a client is called */
const second = new Map<string, string>();
const learning = new Map<number, { resolve: () => void; reject: (error: Error) => void }>();
let nextLearning = 1;

const send = (message: FromThread): void => port.postMessage(message);
const find = (address: string): EgressClient | undefined => clients.get(address);
const own = new OwnAddresses();
const resolver = new Resolver({ path: resolvConf, port: resolverPort });

const dns = new DnsServer({
  find,
  resolver,
  ipv6: gateway6 !== null,
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
  ipv6: gateway6 !== null,
  resolve: async (name, family) => {
    const found = await resolver.addresses(name, family);
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
  clients.delete(second.get(address) ?? "");
  second.delete(address);
  proxy.forget(address);
  dns.forget(address);
}

async function serve(message: Exclude<ToThread, { type: "learned" }>): Promise<PlaneCounters | null> {
  switch (message.type) {
    case "set": {
      const { sandbox, address, address6, spec } = message.client;
      const known = clients.get(address);
      // an address passes on with its number: nothing of the one before is to be seen
      if (known !== undefined && known.sandbox !== sandbox) forget(address);
      const client = { sandbox, address, policy: closedToOwn(parsePolicy(spec, { subnets }), own) };
      clients.set(address, client);
      if (address6 !== null) {
        clients.set(address6, client);
        second.set(address, address6);
      }
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
const proxyPorts6 =
  gateway6 === null
    ? { httpPort: 0, tlsPort: 0 }
    : await proxy.listen(gateway6, ports === null ? undefined : { httpPort: ports.http6, tlsPort: ports.tls6 });
send({
  type: "ready",
  ports: {
    dnsUdp: dnsPorts.udpPort,
    dnsTcp: dnsPorts.tcpPort,
    http: proxyPorts.httpPort,
    tls: proxyPorts.tlsPort,
    http6: proxyPorts6.httpPort,
    tls6: proxyPorts6.tlsPort,
  },
});

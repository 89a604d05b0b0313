import { parentPort, workerData } from "node:worker_threads";
import type { PlaneClient, PlaneCounters, PlaneSecrets } from "../core/egress/plane.js";
import type { EgressPolicy } from "../core/egress/egress-policy.js";
import { parsePolicy } from "../core/egress/policy.js";
import { DnsServer } from "./dns/dns-server.js";
import { Resolver } from "./dns/resolver.js";
import type { EgressClient } from "./egress-client.js";
import { closedToOwn, OwnAddresses } from "./own-addresses.js";
import { trustedRoots } from "./tls/roots.js";
import type { Resolve } from "./proxy/dial.js";
import { postForm } from "./proxy/post-form.js";
import { SecretSet } from "./secrets/secret-set.js";
import { TokenSources } from "./secrets/oauth2/token-sources.js";
import { EgressProxy } from "./proxy/egress-proxy.js";
import { SecretShelf } from "./secret-shelf.js";
import type { FromThread, ThreadData, ToThread } from "./thread-protocol.js";

/** The thread that parses what sandboxes send: it shares no event loop with the API, and holds no privilege that it uses. */
const port = parentPort;
if (port === null) throw new Error("this is a thread of squashd");
const { gateway, gateway6, resolvConf, resolverPort, subnets, apiPort, extraRoots, ports } = workerData as ThreadData;

/** by address, those with IPv6 twice */
const clients = new Map<string, EgressClient>();
/** as they were made known, by the address by which they are called */
const known = new Map<string, PlaneClient>();
const shelf = new SecretShelf();
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

const resolve: Resolve = async (name, family) => {
  const found = await resolver.addresses(name, family);
  return "addresses" in found ? found.addresses : [];
};
const trusted = trustedRoots({ extraFile: extraRoots });
const anywhere = closedToOwn(parsePolicy({ allow: null, deny: [] }, { subnets }), own, apiPort);
const tokens = new TokenSources({
  post: postForm({ resolve, ipv6: gateway6 !== null, trusted, policy: anywhere }),
  now: () => performance.now(),
  rotated: (token) => send({ type: "rotated", token }),
});

const proxy = new EgressProxy({
  find,
  ipv6: gateway6 !== null,
  resolve,
  audit: (decision) => send({ type: "decided", decision }),
  trusted,
  compile: (secrets) => SecretSet.compile(secrets, tokens),
  noteUse: (use) => send({ type: "used", use }),
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
  known.delete(address);
  clients.delete(address);
  clients.delete(second.get(address) ?? "");
  second.delete(address);
  proxy.forget(address);
  dns.forget(address);
}

function place({ sandbox, address, address6, secrets, ca }: PlaneClient, policy: EgressPolicy): void {
  const client = { sandbox, address, policy, secrets: shelf.granted(secrets), authority: shelf.authority(ca) };
  clients.set(address, client);
  proxy.prepare(client);
  if (address6 === null) return;
  clients.set(address6, client);
  second.set(address, address6);
}

/** Those whose secrets stay the same notice nothing. */
function setSecrets(secrets: PlaneSecrets): void {
  shelf.keepOnly(Array.from(known.values(), (client) => client.secrets));
  shelf.replace(secrets);
  tokens.set(secrets.secrets);
  for (const client of known.values()) {
    const before = clients.get(client.address);
    if (before === undefined) continue;
    place(client, before.policy);
    if (clients.get(client.address)?.secrets !== before.secrets) proxy.recheck(client.address);
  }
}

async function serve(message: Exclude<ToThread, { type: "learned" }>): Promise<PlaneCounters | null> {
  switch (message.type) {
    case "set": {
      const { sandbox, address } = message.client;
      const before = clients.get(address);
      // an address passes on with its number: nothing of the one before is to be seen
      if (before !== undefined && before.sandbox !== sandbox) forget(address);
      known.set(address, message.client);
      place(message.client, closedToOwn(parsePolicy(message.client.spec, { subnets }), own, apiPort));
      if (before !== undefined) proxy.recheck(address);
      return null;
    }
    case "secrets":
      setSecrets(message.secrets);
      return null;
    case "remove":
      forget(message.address);
      return null;
    case "counters":
      return counters(message.address);
    case "close":
      tokens.close();
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
  ports === null ? null : { httpPort: ports.http, tlsPort: ports.tls, explicitPort: ports.explicit },
  { explicit: true },
);
const proxyPorts6 =
  gateway6 === null
    ? { httpPort: 0, tlsPort: 0 }
    : await proxy.listen(
        gateway6,
        ports === null ? null : { httpPort: ports.http6, tlsPort: ports.tls6, explicitPort: 0 },
        { explicit: false },
      );
send({
  type: "ready",
  ports: {
    dnsUdp: dnsPorts.udpPort,
    dnsTcp: dnsPorts.tcpPort,
    http: proxyPorts.httpPort,
    tls: proxyPorts.tlsPort,
    explicit: proxyPorts.explicitPort,
    http6: proxyPorts6.httpPort,
    tls6: proxyPorts6.tlsPort,
  },
});

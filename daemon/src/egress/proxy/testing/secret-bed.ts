import { once } from "node:events";
import type { ClientHttp2Session } from "node:http2";
import { connect as connectHttp2 } from "node:http2";
import { createSecureContext, connect, type SecureContext, type TLSSocket } from "node:tls";
import type { Secret } from "../../../core/secrets/secret.js";
import type { SecretUse } from "../../../core/secrets/secret-use.js";
import { makePair } from "../../../secrets/ca/authority-pair.js";
import { LeafIssuer } from "../../tls/leaf-issuer.js";
import { Peer, connectFrom } from "./peer.js";
import { alice, makeBed, type Bed } from "./proxy-bed.js";
import type { EgressProxyOptions } from "../egress-proxy.js";
import type { Timings } from "../timings.js";

/** what the sandboxes trust, and what the proxy trusts servers' certificates by */
export const proxyAuthority = makePair();
export const serverAuthority = makePair();
const serverLeaves = new LeafIssuer(serverAuthority);

export const value = "real-value-of-the-secret";
export const placeholder = "placeholder-of-the-secret";

/** A secret for a.test, in all places. */
export function secret(change: Partial<Secret> = {}): Secret {
  return {
    ...{ name: "TOKEN", placeholder, value, allowedHosts: ["a.test"], allowedPaths: null, methods: null },
    ...{ injectHeader: null, allowPlaintext: false, elsewhere: "refuse", sigv4: null, oauth2: null },
    locations: ["header", "basic", "query", "body", "websocket"],
    ...change,
  };
}

/** What a TLS server of a name needs, from an authority that the proxy trusts. */
export function serverContext(name: string): SecureContext {
  return serverLeaves.contextFor(name);
}

export interface SecretBed extends Bed {
  readonly uses: SecretUse[];
  /** Gives a sandbox other secrets, and rechecks. */
  grant(address: string, secrets: readonly Secret[]): void;
  /** A TLS connection of alice's to a name, as the firewall leads it. */
  secure(name: string, options?: { protocols?: string[]; maxVersion?: "TLSv1.2" }): Promise<Peer>;
  /** The same by HTTP/2. */
  http2(name: string): Promise<ClientHttp2Session>;
}

/** As `makeBed`, with a secret granted to alice. */
export async function makeSecretBed(
  secrets: readonly Secret[] = [secret()],
  timings: Partial<Timings> = {},
  options: Partial<EgressProxyOptions> = {},
): Promise<SecretBed> {
  const uses: SecretUse[] = [];
  const context = createSecureContext({ ca: serverAuthority.certificatePem });
  const bed = await makeBed(timings, {
    noteUse: (use) => uses.push(use),
    trusted: () => context,
    ...options,
  });
  const grant = (address: string, granted: readonly Secret[]): void => {
    bed.clients.set(address, { ...bed.clients.get(address)!, secrets: granted, authority: proxyAuthority });
    bed.proxy.recheck(address);
  };
  grant(alice, secrets);
  const open = async (name: string, options: { protocols?: string[]; maxVersion?: "TLSv1.2" }): Promise<TLSSocket> => {
    const { socket } = await connectFrom(alice, bed.tlsPort);
    socket.removeAllListeners("data");
    const { protocols: ALPNProtocols = ["http/1.1"], ...rest } = options;
    const tls = connect({ socket, servername: name, ca: proxyAuthority.certificatePem, ALPNProtocols, ...rest });
    await once(tls, "secureConnect");
    tls.on("error", () => undefined);
    return tls;
  };
  return {
    ...bed,
    ...{ uses, grant },
    secure: async (name, options = {}) => new Peer(await open(name, options)),
    http2: async (name) => {
      const socket = await open(name, { protocols: ["h2"] });
      const session = connectHttp2(`https://${name}`, { createConnection: () => socket });
      session.on("error", () => undefined);
      await once(session, "connect");
      return session;
    },
  };
}

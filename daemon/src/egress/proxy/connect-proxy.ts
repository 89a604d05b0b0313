import type { IncomingMessage } from "node:http";
import type { Connection, Flow } from "./connection.js";
import { valuesOf } from "./http-fields.js";
import { connectTo, isAddress, readAuthority } from "./host.js";
import { sayRefusedRaw } from "./http-refusal.js";
import { hasBody } from "./http-target.js";
import type { TlsProxy } from "./tls-proxy.js";
import { tunnel, type TunnelOptions } from "./tunnel.js";

export interface ConnectProxyOptions extends TunnelOptions {
  readonly tls: TlsProxy;
}

const established = "HTTP/1.1 200 Connection Established\r\n\r\n";
/** what goes to port 80 is looked at, and names are asked for at squashd, by the other ways to there; by this one they would pass unseen */
const closedPorts = new Set([53, 80, 853]);
const httpsPort = 443;

/** Serves clients that ask the proxy for a connection to a host and port. */
export class ConnectProxy {
  readonly #options: ConnectProxyOptions;

  constructor(options: ConnectProxyOptions) {
    this.#options = options;
  }

  /** Takes over a connection whose last request was a CONNECT; `head` is what came after it. */
  serve(connection: Connection, request: IncomingMessage, head: Buffer): void {
    const { client } = connection;
    const asked = readAuthority(request.url ?? "", 0, { addresses: true });
    const hosts = valuesOf(request.rawHeaders, "host");
    if (asked === null || asked.port === 0) {
      this.#refuse(connection, { status: 400, rule: "a CONNECT that is not for a name or an address, and a port" });
    } else if (hosts.length > 1 || hasBody(request)) {
      this.#refuse(connection, { ...asked, status: 400, rule: "a CONNECT with a body, or more than one Host field" });
    } else if (closedPorts.has(asked.port)) {
      this.#refuse(connection, { ...asked, status: 403, rule: `a CONNECT to port ${asked.port}` });
    } else {
      const policy = connection.policy();
      if (policy === null) return;
      const verdict = connectTo(policy, asked);
      if (!verdict.allowed) {
        this.#refuse(connection, { ...asked, status: 403, rule: verdict.rule });
        return;
      }
      if (head.length > 0) client.unshift(head);
      // to an address there is no name within that would have to agree
      if (asked.port === httpsPort && !isAddress(asked.name)) {
        client.write(established);
        this.#options.tls.serve(connection, asked.name);
      } else this.#join(connection, { ...asked, rule: verdict.rule });
    }
  }

  #join(connection: Connection, { name, port, rule }: { name: string; port: number; rule: string }): void {
    const { client } = connection;
    const flow: Flow = { name, port, address: null };
    const say = (status: number, text: string): void =>
      sayRefusedRaw(client, status, text, this.#options.timings.linger);
    const ends = {
      connected: () => {
        client.write(established);
        return null;
      },
      refused: (why: string) => say(403, `egress to ${name}:${port} is not allowed (${why})`),
      failed: (why: string) => say(why === "too slow" ? 504 : 502, `cannot reach ${name}:${port} (${why})`),
    };
    void tunnel(connection, flow, { ...this.#options, rule, ends });
  }

  #refuse(
    connection: Connection,
    { status, rule, name = null, port }: { status: number; rule: string; name?: string | null; port?: number },
  ): void {
    const decided = { name, address: null, allowed: false, rule };
    connection.decide(port === undefined ? decided : { ...decided, port });
    const what = name === null ? "the request" : `egress to ${name}:${port ?? ""}`;
    sayRefusedRaw(connection.client, status, `${what} is not allowed (${rule})`, this.#options.timings.linger);
  }
}

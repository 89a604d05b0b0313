import { ClientHelloReader, type ClientHello } from "./client-hello.js";
import type { EgressClient } from "../egress-client.js";
import type { Connection, Flow } from "./connection.js";
import type { Interceptor } from "./interceptor.js";
import { tunnel, type TunnelOptions } from "./tunnel.js";

const httpsPort = 443;

/** Source: RFC 8446, section 6.2 */
const alert = {
  handshake_failure: 40,
  access_denied: 49,
  decode_error: 50,
  internal_error: 80,
  unrecognized_name: 112,
};

export interface TlsProxyOptions extends TunnelOptions {
  readonly interceptor: Interceptor;
}

/**
 * Lets a TLS connection through to the name in its ClientHello, where the policy allows it. What is within stays a secret, unless the
 * sandbox has a secret of its own for that name: then the proxy is the server.
 */
export class TlsProxy {
  readonly #options: TlsProxyOptions;

  constructor(options: TlsProxyOptions) {
    this.#options = options;
  }

  /** Serves a connection that was just accepted, or one that the client has asked for `expected` on, which has to be its name then. */
  serve(connection: Connection, expected: string | null = null): void {
    const { client } = connection;
    const reader = new ClientHelloReader();
    const timer = setTimeout(
      () => this.#refuse(connection, { name: null, rule: "no ClientHello in time" }, alert.decode_error),
      this.#options.timings.hello,
    );
    client.once("close", () => clearTimeout(timer));
    // its end before its hello: nobody is left who could be told
    client.on("end", () => {
      if (connection.flows.size === 0 && !connection.intercepted) client.end();
    });
    const receive = (chunk: Buffer): void => {
      const result = reader.push(chunk);
      if (result.kind === "more") return;
      client.off("data", receive).pause();
      clearTimeout(timer);
      if (result.kind === "bad") this.#refuse(connection, { name: null, rule: result.reason }, alert.decode_error);
      else this.#decide(connection, result, { received: reader.received, expected });
    };
    client.on("data", receive);
  }

  #decide(
    connection: Connection,
    hello: ClientHello,
    { received, expected }: { received: Buffer; expected: string | null },
  ): void {
    const { serverName: name } = hello;
    if (hello.ech) {
      this.#refuse(connection, { name, rule: "encrypted client hello" }, alert.handshake_failure);
      return;
    }
    if (name === null) {
      this.#refuse(connection, { name, rule: "no server name" }, alert.unrecognized_name);
      return;
    }
    if (expected !== null && name !== expected) {
      this.#refuse(connection, { name, rule: "another server name than was asked for" }, alert.unrecognized_name);
      return;
    }
    const now = connection.now();
    if (now === null) return;
    const verdict = now.policy.connectByName(name, httpsPort, "tcp");
    if (!verdict.allowed) this.#refuse(connection, { name, rule: verdict.rule }, alert.access_denied);
    else if (now.authority !== null && connection.uses.intercepts(now, name)) {
      connection.client.unshift(received);
      this.#options.interceptor.intercept(connection, name, now.authority);
    } else this.#connect(connection, { name, rule: verdict.rule, received });
  }

  #connect(connection: Connection, { name, rule, received }: Wanted): void {
    const suits = (now: EgressClient): boolean => !connection.uses.intercepts(now, name);
    const flow: Flow = { name, port: httpsPort, address: null, suits };
    const ends = {
      connected: () => received,
      refused: () => this.#say(connection, alert.access_denied),
      failed: () => this.#say(connection, alert.internal_error),
    };
    void tunnel(connection, flow, { ...this.#options, rule, ends });
  }

  #refuse(
    connection: Connection,
    why: { name: string | null; rule: string; address?: string | null },
    code: number,
  ): void {
    connection.decide({ address: null, port: httpsPort, ...why, allowed: false });
    this.#say(connection, code);
  }

  /** Says why in a fatal alert, which a client can read when what it sends meanwhile is read, too. */
  #say({ client }: Connection, code: number): void {
    client.removeAllListeners("data").resume();
    client.end(Buffer.from([21, 3, 3, 0, 2, 2, code]));
    const timer = setTimeout(() => client.destroy(), this.#options.timings.linger);
    client.once("close", () => clearTimeout(timer));
  }
}

interface Wanted {
  readonly name: string;
  /** that allowed it */
  readonly rule: string;
  readonly received: Buffer;
}

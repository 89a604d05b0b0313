import type { Socket } from "node:net";
import { ClientHelloReader, type ClientHello } from "./client-hello.js";
import type { Connection } from "./connection.js";
import { DialFailed, DialRefused, dial, type Resolve } from "./dial.js";
import { LargeBuffers } from "./large-buffers.js";
import { connectInto, splice } from "./splice.js";
import type { Timings } from "./timings.js";

const largeBuffers = 32;

/** Source: RFC 8446, section 6.2 */
const alert = {
  handshake_failure: 40,
  access_denied: 49,
  decode_error: 50,
  internal_error: 80,
  unrecognized_name: 112,
};

export interface TlsProxyOptions {
  readonly resolve: Resolve;
  readonly ipv6: boolean;
  readonly timings: Timings;
  /** where servers listen, other than on 443 in tests */
  readonly port: number;
}

/** Lets a TLS connection through to the name in its ClientHello, where the policy allows it. What is within stays a secret. */
export class TlsProxy {
  readonly #options: TlsProxyOptions;
  readonly #large = new LargeBuffers(largeBuffers);

  constructor(options: TlsProxyOptions) {
    this.#options = options;
  }

  /** Serves a connection that was just accepted. */
  serve(connection: Connection): void {
    const { client } = connection;
    const reader = new ClientHelloReader();
    const timer = setTimeout(
      () => this.#refuse(connection, { name: null, rule: "no ClientHello in time" }, alert.decode_error),
      this.#options.timings.hello,
    );
    client.once("close", () => clearTimeout(timer));
    // its end before its hello: nobody is left who could be told
    client.on("end", () => {
      if (connection.flow === null) client.end();
    });
    const receive = (chunk: Buffer): void => {
      const result = reader.push(chunk);
      if (result.kind === "more") return;
      client.off("data", receive).pause();
      clearTimeout(timer);
      if (result.kind === "bad") this.#refuse(connection, { name: null, rule: result.reason }, alert.decode_error);
      else this.#decide(connection, result, reader.received);
    };
    client.on("data", receive);
  }

  #decide(connection: Connection, hello: ClientHello, received: Buffer): void {
    const { serverName: name } = hello;
    if (hello.ech) {
      this.#refuse(connection, { name, rule: "encrypted client hello" }, alert.handshake_failure);
      return;
    }
    if (name === null) {
      this.#refuse(connection, { name, rule: "no server name" }, alert.unrecognized_name);
      return;
    }
    const verdict = connection.policy()?.connectByName(name, connection.port, "tcp");
    if (verdict === undefined) return;
    if (verdict.allowed) void this.#connect(connection, { name, rule: verdict.rule, received });
    else this.#refuse(connection, { name, rule: verdict.rule }, alert.access_denied);
  }

  async #connect(connection: Connection, { name, rule, received }: Wanted): Promise<void> {
    const { client } = connection;
    const flow = { name, address: null };
    connection.flow = flow;
    const open = (host: string): Socket => connectInto(client, { host, port: this.#options.port }, this.#large);
    try {
      const server = await dial(connection, flow, { ...this.#options, open });
      connection.attach(server);
      connection.decide({ name, address: flow.address, allowed: true, rule });
      server.write(received);
      splice(client, server);
    } catch (error) {
      connection.flow = null;
      if (error instanceof DialRefused) {
        this.#refuse(connection, { name, rule: error.rule, address: error.address }, alert.access_denied);
      } else if (!(error instanceof DialFailed)) {
        connection.decide({ name, address: null, allowed: false, rule: `internal error: ${String(error)}` });
        connection.cut();
      } else if (error.reason !== "gone") {
        connection.decide({ name, address: null, allowed: true, rule });
        this.#say(connection, alert.internal_error);
      }
    }
  }

  #refuse(
    connection: Connection,
    why: { name: string | null; rule: string; address?: string | null },
    code: number,
  ): void {
    connection.decide({ address: null, ...why, allowed: false });
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

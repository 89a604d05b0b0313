import type { Socket } from "node:net";
import type { Connection, Flow } from "./connection.js";
import { DialFailed, DialRefused, dial, type Resolve } from "./dial.js";
import type { LargeBuffers } from "./large-buffers.js";
import { connectInto, splice } from "./splice.js";
import type { Timings } from "./timings.js";

export interface TunnelOptions {
  readonly resolve: Resolve;
  readonly ipv6: boolean;
  readonly timings: Timings;
  /** where servers listen, other than on their ports in tests */
  readonly portOf: (port: number) => number;
  readonly large: LargeBuffers;
}

export interface TunnelEnds {
  /** Connected: called before a byte comes from the server. Gives what is sent to it first. */
  readonly connected: () => Buffer | null;
  /** The policy refuses it, as it is now. */
  readonly refused: (rule: string, address: string | null) => void;
  /** It cannot be reached. */
  readonly failed: (reason: DialFailed["reason"]) => void;
}

/** Joins a client with the server of a name, whatever they say to each other. `rule` is what allowed it. */
export async function tunnel(
  connection: Connection,
  flow: Flow,
  { rule, ends, ...options }: TunnelOptions & { readonly rule: string; readonly ends: TunnelEnds },
): Promise<void> {
  const { client } = connection;
  const { name, port } = flow;
  connection.flows.add(flow);
  const to = options.portOf(port);
  const open = (host: string): Socket => connectInto(client, { host, port: to }, options.large);
  try {
    const server = await dial(connection, flow, { ...options, open });
    connection.attach(server);
    connection.decide({ name, port, address: flow.address, allowed: true, rule });
    const first = ends.connected();
    if (first !== null) server.write(first);
    splice(client, server);
  } catch (error) {
    connection.flows.delete(flow);
    if (error instanceof DialRefused) {
      connection.decide({ name, port, address: error.address, allowed: false, rule: error.rule });
      ends.refused(error.rule, error.address);
    } else if (!(error instanceof DialFailed)) {
      connection.decide({ name, port, address: null, allowed: false, rule: `internal error: ${String(error)}` });
      connection.cut();
    } else if (error.reason !== "gone") {
      connection.decide({ name, port, address: null, allowed: true, rule });
      ends.failed(error.reason);
    }
  }
}

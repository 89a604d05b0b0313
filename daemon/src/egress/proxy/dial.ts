import { isIPv4, type Socket } from "node:net";
import type { Connection, Flow } from "./connection.js";
import type { Timings } from "./timings.js";

const maxLookedAt = 64;
const maxTried = 4;

/** The IPv4 addresses of a name. Throws, or gives none, where there are none. */
export type Resolve = (name: string) => Promise<readonly string[]>;

export interface DialOptions {
  readonly resolve: Resolve;
  readonly timings: Timings;
  /** Starts a connection to an address. */
  readonly open: (address: string) => Socket;
}

/** What the policy refused while it was on its way: the name, or all its addresses. */
export class DialRefused extends Error {
  override readonly name = "DialRefused";
  readonly rule: string;
  readonly address: string | null;

  constructor(rule: string, address: string | null) {
    super(rule);
    this.rule = rule;
    this.address = address;
  }
}

export type DialFailureReason = "no address" | "unreachable" | "too slow" | "gone";

/** The name could not be reached, or the client went away meanwhile. */
export class DialFailed extends Error {
  override readonly name = "DialFailed";
  readonly reason: DialFailureReason;

  constructor(reason: DialFailureReason) {
    super(reason);
    this.reason = reason;
  }
}

/**
 * Connects to a name's addresses, one after the other, of which only those are tried that the policy allows, as it is at that moment.
 * Keeps `flow` up to date for rechecks. Throws `DialRefused` or `DialFailed`.
 */
export async function dial(connection: Connection, flow: Flow, options: DialOptions): Promise<Socket> {
  const { timings } = options;
  const found = await withDeadline(options.resolve(flow.name), timings.resolve);
  const addresses = found.filter((address) => isIPv4(address)).slice(0, maxLookedAt);
  const end = performance.now() + timings.dial;
  let refused: DialRefused | null = null;
  let failed: DialFailed | null = null;
  let tried = 0;
  for (const address of addresses) {
    refused = refusal(connection, flow.name, address);
    if (refused !== null) continue;
    const left = Math.min(timings.connect, end - performance.now());
    if (tried === maxTried || left <= 0) break;
    tried += 1;
    flow.address = address;
    try {
      const socket = await connected(options.open(address), left, connection.signal);
      refused = refusal(connection, flow.name, address); // it may have changed meanwhile
      if (refused === null) return socket;
      socket.destroy();
    } catch (error) {
      if (!(error instanceof DialFailed) || error.reason === "gone") throw error;
      failed = error;
    }
    flow.address = null;
  }
  throw failed ?? refused ?? new DialFailed("no address");
}

function refusal(connection: Connection, name: string, address: string): DialRefused | null {
  const policy = connection.policy();
  if (policy === null || connection.signal.aborted || connection.client.destroyed) throw new DialFailed("gone");
  const byName = policy.connectByName(name, connection.port, "tcp");
  if (!byName.allowed) return new DialRefused(byName.rule, null);
  const resolved = policy.connectResolved(address, connection.port, "tcp");
  return resolved.allowed ? null : new DialRefused(resolved.rule, address);
}

function withDeadline(resolving: Promise<readonly string[]>, ms: number): Promise<readonly string[]> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new DialFailed("no address")), ms);
    resolving.then(resolve, () => reject(new DialFailed("no address"))).finally(() => clearTimeout(timer));
  });
}

/** The socket once it is connected. Throws `DialFailed`, and the socket is gone. */
function connected(socket: Socket, ms: number, signal: AbortSignal): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const fail = (reason: DialFailureReason): void => {
      done();
      socket.destroy();
      reject(new DialFailed(reason));
    };
    const leave = (): void => fail("gone");
    const timer = setTimeout(() => fail("too slow"), ms);
    const done = (): void => {
      clearTimeout(timer);
      signal.removeEventListener("abort", leave);
      socket.off("close", lost).off("connect", made);
    };
    const lost = (): void => fail("unreachable");
    const made = (): void => {
      done();
      resolve(socket);
    };
    socket.on("error", () => undefined); // "close" follows
    socket.on("close", lost).on("connect", made);
    if (signal.aborted) leave();
    else signal.addEventListener("abort", leave);
  });
}

import { isIP, type Socket } from "node:net";
import type { Family } from "../../core/egress/address.js";
import type { Connection, Flow } from "./connection.js";
import { connectTo, isAddress } from "./host.js";
import type { Timings } from "./timings.js";

const maxLookedAt = 64;
/** addresses, of all families together */
const maxTried = 4;

/** The addresses of a name, of one family. Throws, or gives none, where there are none. */
export type Resolve = (name: string, family: Family) => Promise<readonly string[]>;

export interface DialOptions {
  readonly resolve: Resolve;
  /** whether servers are tried by IPv6 as well */
  readonly ipv6: boolean;
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
 * Connects to a name's addresses, or to the address itself, one after the other, of which only those are tried that the policy allows, as it
 * is at that moment; first to those of the family that the client came by. Keeps `flow` up to date for rechecks. Throws `DialRefused` or `DialFailed`.
 */
export async function dial(connection: Connection, flow: Flow, options: DialOptions): Promise<Socket> {
  const attempt: Attempt = { end: performance.now() + options.timings.dial, refused: null, failed: null };
  const families = familiesOf(connection, options.ipv6);
  for (const family of families) {
    const socket = await dialFamily(connection, flow, {
      ...options,
      family,
      tries: maxTried / families.length,
      attempt,
    });
    if (socket !== null) return socket;
  }
  throw attempt.failed ?? attempt.refused ?? new DialFailed("no address");
}

/** What has become of it so far. */
interface Attempt {
  /** of all tries, once the first name is resolved */
  end: number;
  refused: DialRefused | null;
  failed: DialFailed | null;
}

function familiesOf({ client }: Connection, ipv6: boolean): readonly Family[] {
  if (!ipv6) return [4];
  return client.remoteFamily === "IPv6" ? [6, 4] : [4, 6];
}

async function dialFamily(
  connection: Connection,
  flow: Flow,
  options: DialOptions & { readonly family: Family; readonly tries: number; readonly attempt: Attempt },
): Promise<Socket | null> {
  const { timings, family, tries, attempt } = options;
  const before = performance.now();
  const found = isAddress(flow.name)
    ? [flow.name]
    : await withDeadline(options.resolve(flow.name, family), timings.resolve).catch((error: unknown) => {
        if (!(error instanceof DialFailed)) throw error;
        attempt.failed ??= error;
        return [];
      });
  // resolving has its own time
  attempt.end += performance.now() - before;
  let tried = 0;
  for (const address of found.filter((each) => isIP(each) === family).slice(0, maxLookedAt)) {
    const refused = refusal(connection, flow, address);
    attempt.refused = refused;
    if (refused !== null) continue;
    const left = Math.min(timings.connect, attempt.end - performance.now());
    if (tried === tries || left <= 0) break;
    tried += 1;
    flow.address = address;
    try {
      const socket = await connected(options.open(address), left, connection.signal);
      attempt.refused = refusal(connection, flow, address); // it may have changed meanwhile
      if (attempt.refused === null) return socket;
      socket.destroy();
    } catch (error) {
      if (!(error instanceof DialFailed) || error.reason === "gone") throw error;
      attempt.failed = error;
    }
    flow.address = null;
  }
  return null;
}

function refusal(connection: Connection, flow: Flow, address: string): DialRefused | null {
  const policy = connection.policy();
  if (policy === null || connection.signal.aborted || connection.client.destroyed) throw new DialFailed("gone");
  const byName = connectTo(policy, flow);
  if (!byName.allowed) return new DialRefused(byName.rule, null);
  const resolved = policy.connectResolved(address, flow.port, "tcp");
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

import { connect, type ClientHttp2Session } from "node:http2";
import type { TLSSocket } from "node:tls";
import { http2Limits } from "./http2-limits.js";
import { serverKey, type Server } from "./upstream-pool.js";

const maxServers = 32;
/** how long a server that chose HTTP/1.1 is not asked again */
const rememberMs = 60_000;

/** What a server speaks: HTTP/2 over this session; or HTTP/1.1, over this connection or, null, over one that is yet to be made. */
export type Found = { readonly http2: UpstreamSession } | { readonly http1: TLSSocket | null };

export interface FindOptions {
  /** whether the connection's address is allowed now */
  readonly allows: (address: string) => boolean;
  /** Connects with both protocols on offer. */
  readonly open: () => Promise<TLSSocket>;
  /** whether who waits for it is gone */
  readonly signal: AbortSignal;
}

interface Entry {
  readonly sandbox: string;
  readonly server: Server;
  session: UpstreamSession | null;
  opening: Promise<UpstreamSession | null> | null;
  /** until when it is known to speak HTTP/1.1, as `performance.now()` has it */
  http1Until: number;
}

/** A connection by HTTP/2 that requests share. It closes when it had none for a while. */
export class UpstreamSession {
  readonly session: ClientHttp2Session;
  /** null where it is gone */
  readonly address: string | null;
  readonly #idleMs: number;
  #calls = 0;
  #timer: NodeJS.Timeout | null = null;

  constructor(socket: TLSSocket, server: Server, idleMs: number) {
    this.address = socket.remoteAddress ?? null;
    this.#idleMs = idleMs;
    this.session = connect(`https://${server.name}:${server.port}`, {
      ...http2Limits,
      createConnection: () => socket,
    });
    this.session.on("error", () => undefined); // calls learn of it by their streams
    this.session.once("close", () => {
      if (this.#timer !== null) clearTimeout(this.#timer);
    });
    this.leave();
  }

  get usable(): boolean {
    return !this.session.closed && !this.session.destroyed;
  }

  enter(): void {
    this.#calls += 1;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
  }

  leave(): void {
    this.#calls = Math.max(0, this.#calls - 1);
    if (this.#calls === 0 && !this.session.destroyed)
      this.#timer = setTimeout(() => this.session.close(), this.#idleMs).unref();
  }
}

/** Connections by HTTP/2, one for each sandbox and server, so that none is shared between sandboxes. */
export class SessionPool {
  readonly #idleMs: number;
  /** by the sandbox's address, then by server, the longest unused first */
  readonly #entries = new Map<string, Map<string, Entry>>();

  constructor(idleMs: number) {
    this.#idleMs = idleMs;
  }

  /** The way to a server. Whoever asks while another one opens it waits for that one. Throws what `open` throws. */
  async find(who: { sandbox: string; address: string }, server: Server, options: FindOptions): Promise<Found> {
    for (;;) {
      const entry = this.#entryFor(who, server);
      const { session } = entry;
      if (session?.usable === true) {
        if (options.allows(session.address ?? "")) return { http2: session };
        session.session.destroy();
      }
      if (performance.now() < entry.http1Until) return { http1: null };
      if (entry.opening === null) return await this.#open(entry, options);
      try {
        await entry.opening;
      } catch (error) {
        // it was lost with the client that asked for it, not for anything that this one would meet as well
        if (options.signal.aborted || (error as Error).message !== "gone") throw error;
      }
    }
  }

  /** Closes the connections of an address that are not allowed. */
  prune(address: string, allows: (server: Server, address: string) => boolean): void {
    for (const { session, server } of this.#entries.get(address)?.values() ?? []) {
      if (session !== null && !allows(server, session.address ?? "")) session.session.destroy();
    }
  }

  /** Closes all that an address has. */
  forget(address: string): void {
    for (const { session } of this.#entries.get(address)?.values() ?? []) session?.session.destroy();
    this.#entries.delete(address);
  }

  forgetAll(): void {
    for (const address of this.#entries.keys()) this.forget(address);
  }

  async #open(entry: Entry, { open }: FindOptions): Promise<Found> {
    let http1: TLSSocket | null = null;
    entry.opening = open().then((socket) => {
      if (socket.alpnProtocol === "h2") return new UpstreamSession(socket, entry.server, this.#idleMs);
      http1 = socket;
      return null;
    });
    try {
      const session = await entry.opening;
      entry.session = session;
      if (session !== null) return { http2: session };
      entry.http1Until = performance.now() + rememberMs;
      return { http1 };
    } finally {
      entry.opening = null;
    }
  }

  #entryFor(who: { sandbox: string; address: string }, server: Server): Entry {
    let entries = this.#entries.get(who.address);
    if (entries === undefined) this.#entries.set(who.address, (entries = new Map<string, Entry>()));
    const key = serverKey(server);
    let entry = entries.get(key);
    if (entry !== undefined && entry.sandbox !== who.sandbox) {
      entry.session?.session.destroy();
      entry = undefined;
    }
    entry ??= { sandbox: who.sandbox, server, session: null, opening: null, http1Until: 0 };
    entries.delete(key);
    entries.set(key, entry);
    if (entries.size > maxServers) this.#dropOldest(entries, key);
    return entry;
  }

  /** Lets the longest unused one come to its end. */
  #dropOldest(entries: Map<string, Entry>, except: string): void {
    for (const [key, { session, opening }] of entries) {
      if (key === except || opening !== null) continue;
      session?.session.close();
      entries.delete(key);
      return;
    }
  }
}

import { spawn, type ChildProcess } from "node:child_process";
import { constants } from "node:os";
import type { Duplex } from "node:stream";
import { getSystemErrorName } from "node:util";
import { SquashError } from "@squash/sdk/errors";
import type { LoggedPacket } from "../core/egress/firewall.js";
import { FieldReader, FieldWriter, FrameDecoder, type Frame } from "./frame.js";
import { readAddress } from "./wire-address.js";
import { cellDiedEvent, firewallGoneEvent, operation, packetEvent, type Operation } from "./host-protocol.js";

const requestTimeoutMs = 30_000;

interface Waiting {
  readonly op: Operation;
  readonly resolve: (fields: FieldReader) => void;
  readonly reject: (error: Error) => void;
  readonly timer: NodeJS.Timeout;
}

export interface HostLinkEvents {
  /** An init died without being asked to. */
  cellDied(index: number, pid: number): void;
  /** The firewall decided on a packet and told of it. */
  packetLogged(packet: LoggedPacket): void;
  /** Somebody removed the firewall, and all links are closed. */
  firewallGone(): void;
  /** sq-host is gone, and every request that waited for it has failed. */
  closed(reason: string): void;
}

/** One running sq-host. When it ends it stays ended: `Host` starts the next one. */
export class HostLink {
  readonly #process: ChildProcess;
  readonly #link: Duplex;
  readonly #events: HostLinkEvents;
  readonly #waiting = new Map<number, Waiting>();
  readonly #decoder = new FrameDecoder();
  #nextId = 1;
  #closed = false;
  #stderr = "";

  constructor(binary: string, events: HostLinkEvents) {
    this.#events = events;
    this.#process = spawn(binary, [], {
      argv0: "sq-host",
      stdio: ["ignore", "ignore", "pipe", "pipe"],
      env: {},
      cwd: "/",
    });
    this.#link = this.#process.stdio[3] as Duplex;
    this.#process.on("error", (error) => this.#close(`cannot start "${binary}": ${error.message}`));
    this.#process.on("exit", (code, signal) =>
      this.#close(`sq-host ended with ${signal ?? `status ${code}`} ${this.#stderr}`),
    );
    this.#process.stderr?.on("data", (text: Buffer) => (this.#stderr = (this.#stderr + text.toString()).slice(-500)));
    this.#link.on("data", (chunk: Buffer) => this.#receive(chunk));
    this.#link.on("error", (error) => this.#close(`the link to sq-host broke: ${error.message}`));
    this.#link.on("close", () => this.#close("sq-host closed its link"));
  }

  get pid(): number | undefined {
    return this.#process.pid;
  }

  /** Does one operation. Throws `SquashError` "kernel" with the failing step and its errno in `details`. */
  request(
    op: Operation,
    fields: FieldWriter,
    { timeoutMs = requestTimeoutMs }: { readonly timeoutMs?: number } = {},
  ): Promise<FieldReader> {
    if (this.#closed) return Promise.reject(new SquashError("kernel", `Cannot do ${op}: sq-host is gone`));
    const id = this.#nextId;
    this.#nextId = id === 0xffffffff ? 1 : id + 1;
    return new Promise((resolve, reject) => {
      /* An sq-host that does not answer is stuck in the kernel; the next one takes over what it left. */
      const timer = setTimeout(() => this.#abandon(`sq-host did not answer ${op} within ${timeoutMs} ms`), timeoutMs);
      this.#waiting.set(id, { op, resolve, reject, timer });
      this.#link.write(fields.frame(operation[op], id));
    });
  }

  /** Ends sq-host; cells go on. */
  end(): void {
    this.#link.end();
  }

  #receive(chunk: Buffer): void {
    try {
      for (const frame of this.#decoder.push(chunk)) this.#dispatch(frame);
    } catch (error) {
      this.#abandon(`sq-host sent what makes no sense: ${String(error)}`);
    }
  }

  #dispatch(frame: Frame): void {
    const fields = new FieldReader(frame.payload);
    if (frame.type === cellDiedEvent) {
      this.#events.cellDied(fields.u32(), fields.u32());
      return;
    }
    if (frame.type === firewallGoneEvent) {
      this.#events.firewallGone();
      return;
    }
    if (frame.type === packetEvent) {
      const [index, allowed, destination] = [fields.u32(), fields.u32() !== 0, readAddress(fields)];
      this.#events.packetLogged({ index, allowed, destination, port: fields.u32(), protocol: fields.u32() });
      return;
    }
    const waiting = this.#waiting.get(frame.id);
    if (waiting === undefined) return;
    // made first: an answer that makes no sense throws, and whoever waits for it must be told like the others
    const error = frame.status === 0 ? null : kernelError(fields.string(), frame.status);
    this.#waiting.delete(frame.id);
    clearTimeout(waiting.timer);
    if (error === null) waiting.resolve(fields);
    else waiting.reject(error);
  }

  #abandon(reason: string): void {
    this.#process.kill("SIGKILL");
    this.#close(reason);
  }

  #close(reason: string): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#link.destroy();
    for (const waiting of this.#waiting.values()) {
      clearTimeout(waiting.timer);
      waiting.reject(new SquashError("kernel", `Cannot do ${waiting.op}: ${reason}`));
    }
    this.#waiting.clear();
    this.#events.closed(reason);
  }
}

function kernelError(what: string, status: number): SquashError {
  const errno = errnoName(status);
  return new SquashError("kernel", `Cannot ${what}: ${errno}`, { details: { errno, step: what } });
}

/** What Node has no name for: damaged file systems give the last. Source: asm-generic/errno.h */
const furtherErrnos: Readonly<Record<number, string>> = { 15: "ENOTBLK", 117: "EUCLEAN" };
const posixErrnos = new Map(Object.entries(constants.errno).map(([name, number]) => [number, name]));

function errnoName(status: number): string {
  const name = getSystemErrorName(-status); // "Unknown system error …" for what libuv does not use itself
  if (/^E[A-Z0-9]+$/.test(name)) return name;
  return posixErrnos.get(status) ?? furtherErrnos[status] ?? `errno ${status}`;
}

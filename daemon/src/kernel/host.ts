import { SquashError } from "@squash/sdk/errors";
import type { LoggedPacket, Subnet } from "../core/egress/firewall.js";
import type { CellProcess } from "../core/ports.js";
import type { FieldReader } from "./frame.js";
import { FieldWriter } from "./frame.js";
import { HostLink } from "./host-link.js";
import type { Operation } from "./host-protocol.js";
import type { CgroupLayout } from "./cgroup.js";
import { writeAddress } from "./wire-address.js";

export interface HostOptions {
  readonly binary: string;
  readonly runDir: string;
  readonly dataDir: string;
  readonly uidBase: number;
  readonly cgroup: CgroupLayout;
  /** null for no network */
  readonly subnet: Subnet | null;
  /** told of each restart */
  readonly restarted: (reason: string) => void;
}

const restartDelayMs = 50;
const maxRestarts = 20;
const restartWindowMs = 60_000;

/** sq-host, kept alive: when it ends, a new one is started and told which cells live. Requests meanwhile wait. */
export class Host {
  readonly #options: HostOptions;
  readonly #cells = new Map<number, CellProcess>();
  readonly #restarts: number[] = [];
  #link: Promise<HostLink>;
  #deathListener: (index: number, pid: number) => void = () => undefined;
  #packetListener: (packet: LoggedPacket) => void = () => undefined;
  #firewallListener: () => void = () => undefined;
  #closing = false;

  private constructor(options: HostOptions) {
    this.#options = options;
    this.#link = this.#start();
    this.#link.catch(() => undefined); // reported by whoever asks for the link
  }

  /** Starts sq-host; throws when it cannot do its work on this machine. */
  static async start(options: HostOptions): Promise<Host> {
    const host = new Host(options);
    await host.#link;
    return host;
  }

  onCellDeath(listener: (index: number, pid: number) => void): void {
    this.#deathListener = listener;
  }

  onPacket(listener: (packet: LoggedPacket) => void): void {
    this.#packetListener = listener;
  }

  onFirewallGone(listener: () => void): void {
    this.#firewallListener = listener;
  }

  async request(
    op: Operation,
    fields: FieldWriter,
    options: { readonly timeoutMs?: number } = {},
  ): Promise<FieldReader> {
    const link = await this.#link;
    return link.request(op, fields, options);
  }

  /** The same for what may be done twice, such as taking something away: where sq-host dies meanwhile the next one does it. */
  async requestTwice(...of: Parameters<Host["request"]>): ReturnType<Host["request"]> {
    const first = this.#link;
    try {
      return await this.request(...of);
    } catch (error) {
      if (this.#link === first) throw error;
      return this.request(...of);
    }
  }

  /** Remembers a living cell, so that the next sq-host can be told of it. */
  remember(index: number, process: CellProcess): void {
    this.#cells.set(index, process);
  }

  forget(index: number): void {
    this.#cells.delete(index);
  }

  /** Process id of the running sq-host. */
  async pid(): Promise<number | undefined> {
    return (await this.#link).pid;
  }

  /** Ends sq-host for good. Cells go on. */
  async close(): Promise<void> {
    this.#closing = true;
    const link = await this.#link.catch(() => null);
    link?.end();
  }

  async #start(): Promise<HostLink> {
    const { binary, runDir, dataDir, uidBase, subnet, cgroup } = this.#options;
    const link = new HostLink(binary, {
      cellDied: (index, pid) => {
        this.forget(index);
        this.#deathListener(index, pid);
      },
      firewallGone: () => this.#firewallListener(),
      packetLogged: (packet) => this.#packetListener(packet),
      closed: (reason) => this.#restart(reason),
    });
    const hello = new FieldWriter()
      .string(runDir)
      .string(dataDir)
      .u32(uidBase)
      .u32(subnet?.base ?? 0);
    writeAddress(hello, subnet?.ipv6?.base ?? 0n).u32(cgroup.version);
    for (const path of cgroup.paths) hello.string(path);
    await link.request("hello", hello);
    for (const [index, process] of this.#cells) await this.#readopt(link, index, process);
    return link;
  }

  async #readopt(link: HostLink, index: number, process: CellProcess): Promise<void> {
    try {
      await link.request("cellAdopt", new FieldWriter().u32(index).u32(process.pid).u64(process.startTime));
    } catch {
      // It died while nobody watched, which is told as if somebody had.
      this.forget(index);
      setImmediate(() => this.#deathListener(index, process.pid));
    }
  }

  #restart(reason: string): void {
    if (this.#closing) return;
    const now = Date.now();
    this.#restarts.push(now);
    while ((this.#restarts[0] ?? now) < now - restartWindowMs) this.#restarts.shift();
    if (this.#restarts.length > maxRestarts) {
      this.#link = Promise.reject(new SquashError("kernel", `Cannot keep sq-host alive: ${reason}`));
      this.#link.catch(() => undefined);
      return;
    }
    this.#options.restarted(reason);
    this.#link = new Promise((resolve) => setTimeout(resolve, restartDelayMs)).then(() => this.#start());
    this.#link.catch(() => undefined);
  }
}

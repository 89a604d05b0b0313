import { readFileSync } from "node:fs";
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { SquashError } from "@squash/sdk/errors";
import type {
  CapturedRoot,
  CellLimits,
  CellProcess,
  CellTask,
  CellUsage,
  Command,
  CommandResult,
  Comparison,
  Kernel,
  LayerFormat,
  RootPlan,
  UpperPlan,
} from "../core/ports.js";
import {
  cellPath,
  findCgroups,
  listCells,
  prepareCgroups,
  readUsage,
  removeCgroups,
  type CgroupLayout,
} from "./cgroup.js";
import type { Subnet } from "../core/egress/firewall.js";
import { FieldWriter } from "./frame.js";
import { rootFlag } from "./host-protocol.js";
import { Host } from "./host.js";
import { ownerOfLayer } from "../core/image-ids.js";
import { LinuxFirewall } from "./network/firewall.js";
import { Pool } from "./pool.js";
import { runSession } from "./session.js";
import { listTasks } from "./tasks.js";

/** native/src/host_capture.c and host_ops.c have the same numbers, in place of a cell's */
const noCell = 0xffffffff;
const exactly = 0xfffffffe;
const unpacked = 0xfffffffd;
const noLimit = 2 ** 53 - 1;
/** as long as native/src/host_capture.c gives it in processor time, and a disk that is slow besides */
const captureTimeoutMs = 3_600_000;

/** native/src/compare.h has the same numbers */
const contentFlags = { none: 0, new: 2, both: 3 } as const;

export interface LinuxKernelOptions {
  readonly binary: string;
  readonly runDir: string;
  readonly dataDir: string;
  readonly uidBase: number;
  /** name of the group below which all cells' groups are */
  readonly cgroupRoot: string;
  /** where sandboxes get their addresses from; null for loopback only */
  readonly subnet: Subnet | null;
  readonly hostRestarted: (reason: string) => void;
}

/** The real kernel, through sq-host and the cells' inits. */
export class LinuxKernel implements Kernel {
  readonly bootId: string;
  /** null where there is no network */
  readonly firewall: LinuxFirewall | null;
  /** subvolumes of uppers and snapshots; of use once it is mounted */
  readonly pool: Pool;
  readonly #host: Host;
  readonly #cgroup: CgroupLayout;
  readonly #cgroupRoot: string;
  readonly #runDir: string;

  private constructor(
    host: Host,
    cgroup: CgroupLayout,
    options: Pick<LinuxKernelOptions, "cgroupRoot" | "runDir" | "subnet"> & { readonly bootId: string },
  ) {
    const { cgroupRoot, runDir, bootId, subnet } = options;
    this.firewall = subnet === null ? null : new LinuxFirewall(host, subnet);
    this.pool = new Pool(host);
    this.#host = host;
    this.#cgroup = cgroup;
    this.#cgroupRoot = cgroupRoot;
    this.#runDir = runDir;
    this.bootId = bootId;
  }

  /** Prepares the cgroups and starts sq-host. Throws `SquashError` that says what this machine lacks. */
  static async start(options: LinuxKernelOptions): Promise<LinuxKernel> {
    const cgroup = await findCgroups(await readFile("/proc/self/mountinfo", "utf8"), options.cgroupRoot);
    await prepareCgroups(cgroup);
    await mkdir(join(options.runDir, "cells"), { recursive: true, mode: 0o700 });
    const bootId = (await readFile("/proc/sys/kernel/random/boot_id", "utf8")).trim();
    const { binary, runDir, dataDir, uidBase, subnet, hostRestarted } = options;
    const host = await Host.start({
      binary,
      runDir,
      dataDir,
      uidBase,
      cgroup,
      subnet,
      restarted: hostRestarted,
    });
    return new LinuxKernel(host, cgroup, { ...options, bootId });
  }

  onCellDeath(listener: (index: number, pid: number) => void): void {
    this.#host.onCellDeath(listener);
  }

  async makeCell(index: number, options: { readonly nestedUserns: boolean }): Promise<CellProcess> {
    const fields = await this.#host.request("cellMake", new FieldWriter().u32(index).u32(options.nestedUserns ? 1 : 0));
    const process = { pid: fields.u32(), startTime: fields.u64() };
    this.#host.remember(index, process);
    return process;
  }

  async adoptCell(index: number, process: CellProcess): Promise<boolean> {
    try {
      await this.#host.request("cellAdopt", new FieldWriter().u32(index).u32(process.pid).u64(process.startTime));
    } catch (error) {
      if (error instanceof SquashError && (error.details["errno"] === "ESRCH" || error.details["errno"] === "ENOENT"))
        return false;
      throw error;
    }
    this.#host.remember(index, process);
    return true;
  }

  async killCell(index: number): Promise<void> {
    this.#host.forget(index);
    await this.#host.requestTwice("cellKill", new FieldWriter().u32(index));
  }

  async limitCell(index: number, limits: CellLimits): Promise<void> {
    const fields = new FieldWriter().u32(index).u64(limits.memoryBytes).u32(limits.cpuQuotaUs).u32(limits.pids);
    await this.#host.request("cellLimit", fields);
  }

  async freezeCell(index: number, frozen: boolean): Promise<void> {
    await this.#host.request("cellFreeze", new FieldWriter().u32(index).u32(frozen ? 1 : 0));
  }

  bootMs(): number {
    const [seconds = ""] = readFileSync("/proc/uptime", "utf8").split(" ");
    return Math.floor(Number(seconds) * 1000);
  }

  async setDeadline(index: number, bootMs: number | null): Promise<void> {
    if (bootMs !== null && !(bootMs >= 1)) throw new RangeError(`a deadline of ${bootMs} ms`);
    await this.#host.requestTwice("cellDeadline", new FieldWriter().u32(index).u64(Math.floor(bootMs ?? 0)));
  }

  async giveRoot(index: number, plan: RootPlan): Promise<void> {
    const fields = new FieldWriter()
      .u32(index)
      .u32(flagsOf(plan))
      .string(plan.hostname)
      .string(plan.upper)
      .u32(plan.layers.length);
    for (const key of plan.layers) fields.string(key).u32(ownerOfLayer(key) ?? noCell);
    await this.#host.request("rootGive", fields);
  }

  async mountUpper(plan: UpperPlan): Promise<void> {
    const fields = new FieldWriter()
      .string(plan.path)
      .string(plan.image ?? "")
      .u64(plan.sizeBytes)
      .u32(plan.index);
    await this.#host.request("upperMount", fields);
  }

  async unmountUpper(path: string): Promise<void> {
    await this.#host.requestTwice("upperUnmount", new FieldWriter().string(path));
  }

  async forgetOrigins(path: string): Promise<void> {
    await this.#host.requestTwice("upperForget", new FieldWriter().string(path), { timeoutMs: captureTimeoutMs });
  }

  netnsName(id: string): string {
    return `${this.#cgroupRoot}-${id}`;
  }

  async publishNetns(index: number, name: string): Promise<void> {
    await this.#host.request("netnsPublish", new FieldWriter().u32(index).string(name));
  }

  async withdrawNetns(name: string): Promise<void> {
    await this.#host.requestTwice("netnsWithdraw", new FieldWriter().string(name));
  }

  async mountLayer(key: string, image: string, type: LayerFormat): Promise<void> {
    await this.#host.request("layerMount", new FieldWriter().string(key).string(image).string(type));
  }

  async unmountLayer(key: string): Promise<void> {
    await this.#host.requestTwice("layerUnmount", new FieldWriter().string(key));
  }

  async mountedLayers(): Promise<string[]> {
    const fields = await this.#host.request("layerList", new FieldWriter());
    return Array.from({ length: fields.u32() }, () => fields.string());
  }

  async capture(image: string, roots: readonly CapturedRoot[], sizeLimit = noLimit): Promise<number> {
    const fields = new FieldWriter().string(image).u64(sizeLimit);
    writeRoots(fields, roots);
    return Number((await this.#host.request("capture", fields, { timeoutMs: captureTimeoutMs })).u64());
  }

  async compare(output: string, comparison: Comparison): Promise<number> {
    const { from, to, only, contents, contentLimit, outputLimit } = comparison;
    const fields = new FieldWriter().string(output).u32(contentFlags[contents]);
    fields.u64(contentLimit).u64(outputLimit).bytes(only);
    writeRoots(fields, from);
    writeRoots(fields, to);
    return Number((await this.#host.request("compare", fields, { timeoutMs: captureTimeoutMs })).u64());
  }

  flushPool(): Promise<void> {
    return this.pool.flush();
  }

  snapshotUpper(upper: string, image: string): Promise<number> {
    return this.pool.snapshot(inPool(upper), inPool(image));
  }

  tasks(index: number, init: number): Promise<CellTask[]> {
    return listTasks(cellPath(this.#cgroup, index), init);
  }

  run(index: number, command: Command, signal: AbortSignal): Promise<CommandResult> {
    return runSession(join(this.#runDir, "cells", `${index}.sock`), command, signal);
  }

  usage(index: number): Promise<CellUsage> {
    return readUsage(this.#cgroup, index);
  }

  cellsInCgroups(): Promise<number[]> {
    return listCells(this.#cgroup);
  }

  cgroupPath(index: number): string {
    return cellPath(this.#cgroup, index);
  }

  /** Process id of sq-host, for the log and for tests. */
  hostPid(): Promise<number | undefined> {
    return this.#host.pid();
  }

  /** Ends sq-host. With `forget`, which is right only when no sandbox is left, nothing of it stays on the host. */
  async close(options: { readonly forget: boolean }): Promise<void> {
    if (options.forget) {
      await this.pool.unmount();
      await this.#host.request("close", new FieldWriter());
    }
    await this.#host.close();
    if (options.forget) await removeCgroups(this.#cgroup);
  }
}

function flagsOf({ fresh, named, again = false }: RootPlan): number {
  return (fresh ? rootFlag.fresh : 0) | (named ? rootFlag.named : 0) | (again ? rootFlag.again : 0);
}

/** A name in the pool, from a path that is relative to the data directory. */
function inPool(path: string): string {
  return path.slice("pool/".length);
}

function writeRoots(fields: FieldWriter, roots: readonly CapturedRoot[]): void {
  fields.u32(roots.length);
  for (const root of roots) {
    if (root.kind === "upper") fields.u32(root.index).string(root.path);
    else if (root.kind === "exact") fields.u32(exactly).string(root.key);
    else if (root.kind === "unpacked") fields.u32(unpacked).string(root.path);
    else fields.u32(ownerOfLayer(root.key) ?? noCell).string(root.key);
  }
}

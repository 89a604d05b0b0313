import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import type { Health } from "@squash/sdk/protocol";
import type { Config } from "./config.js";
import { Cells } from "./core/cells.js";
import type { Emit } from "./core/events.js";
import { Layers } from "./core/layers.js";
import type { ModuleCatalog } from "./core/ports.js";
import { startReaper } from "./core/reaper.js";
import { Recovery } from "./core/recovery.js";
import { Sandboxes } from "./core/sandboxes.js";
import type { ModuleStore } from "./core/modules.js";
import { SnapshotImages } from "./core/snapshot-images.js";
import type { CollectFiles } from "./core/snapshots.js";
import type { FetchSnapshot } from "./core/stacks.js";
import { timeTravel, type TimeTravel } from "./core/time-travel.js";
import type { Custody } from "./core/remote/custody.js";
import { SecretInjection } from "./core/secrets/injection.js";
import type { Gauges } from "./core/service.js";
import type { LinuxKernel } from "./kernel/kernel.js";
import { lockNetwork } from "./kernel/network/lock.js";
import { DaemonNetwork } from "./network.js";
import { SecretHouse } from "./secret-house.js";
import { openPool } from "./open-pool.js";
import { startKernel } from "./start-kernel.js";
import type { DecisionLog } from "./store/decision-log.js";
import { Ext4Template } from "./store/ext4-template.js";
import { TrustImageFolder } from "./secrets/trust/trust-images.js";
import { SandboxFiles } from "./store/sandbox-files.js";

/** how long a layer that nobody uses stays mounted */
const layerLingerMs = 30_000;

type SnapshotParts = Pick<TimeTravel, "adoption" | "merge"> & {
  readonly sandboxes: Sandboxes;
  readonly store: SandboxFiles;
  readonly images: SnapshotImages;
};

export interface DaemonOptions {
  readonly config: Config;
  readonly version: string;
  readonly catalog: ModuleCatalog & Pick<ModuleStore, "list">;
  readonly collectFiles: CollectFiles;
  /** who keeps sandboxes elsewhere; absent where they are of this machine alone */
  readonly custody?: (kernel: LinuxKernel) => Custody | null;
  /** absent where there is no bucket */
  readonly fetchSnapshot?: FetchSnapshot;
  readonly emit: Emit;
  /** told of failures that no caller learns of */
  readonly report: (error: unknown) => void;
  readonly reapFailed: (id: string, error: unknown) => void;
}

/** Everything of squashd but its HTTP surface: started, it has recovered what an earlier one left. */
export class Daemon {
  readonly sandboxes: Sandboxes;
  readonly time: TimeTravel;
  readonly gauges: Gauges;
  readonly decisions: DecisionLog;
  readonly secrets: SecretHouse;
  /** for who sends snapshots elsewhere, and fetches them */
  readonly snapshotParts: SnapshotParts;
  readonly #options: DaemonOptions;
  readonly #kernel: LinuxKernel;
  readonly #cells: Cells;
  readonly #layers: Layers;
  readonly #network: DaemonNetwork;
  readonly #stopReaper: () => void;
  readonly #stopRetention: () => void;
  readonly #startedAt = performance.now();

  private constructor(
    options: DaemonOptions,
    parts: {
      kernel: LinuxKernel;
      sandboxes: Sandboxes;
      time: TimeTravel;
      cells: Cells;
      layers: Layers;
      network: DaemonNetwork;
      secrets: SecretHouse;
      store: SandboxFiles;
      images: SnapshotImages;
    },
  ) {
    this.#options = options;
    this.sandboxes = parts.sandboxes;
    this.time = parts.time;
    this.#kernel = parts.kernel;
    this.#cells = parts.cells;
    this.#layers = parts.layers;
    this.#network = parts.network;
    this.decisions = parts.network.decisions;
    this.secrets = parts.secrets;
    const { sandboxes, store, images, time } = parts;
    this.snapshotParts = { sandboxes, store, images, merge: time.merge, adoption: time.adoption };
    this.#stopReaper = startReaper(parts.sandboxes, options.reapFailed);
    this.#stopRetention = parts.time.retention.start();
    this.gauges = {
      sandboxesByState: () => this.sandboxes.byState(),
      poolReady: () => this.#cells.ready,
      layersMounted: () => this.#layers.mounted,
      learnedAddresses: () => this.#network.learned,
      networks: () => this.sandboxes.networks(),
    };
  }

  /** Starts sq-host, recovers, and begins to fill the pool. Throws `SquashError` that says what this machine lacks. */
  static async start(options: DaemonOptions): Promise<Daemon> {
    const { config, emit } = options;
    await mkdir(join(config.dataDir, "modules"), { recursive: true });
    await mkdir(config.runDir, { recursive: true, mode: 0o700 });
    // first of all: sq-host itself changes addresses and takes the firewall's log
    const lock = config.subnet === null ? null : await lockNetwork();
    let network: DaemonNetwork | null = null;
    const kernel = await startKernel(config, (reason) => {
      emit({ type: "host.restarted", reason });
      network?.restore();
    });
    const template = new Ext4Template(join(config.dataDir, "cache", "upper-template"));
    const pool = await openPool(kernel.pool, config);
    const makeImage = (path: string, size: number): Promise<void> => template.make(path, size);
    const store = new SandboxFiles(config.dataDir, { makeImage, boot: kernel.bootId, pool });
    const cells = new Cells(kernel, { poolSize: config.poolSize, emit });
    const layers = new Layers(kernel, { lingerMs: layerLingerMs });
    const secrets = await SecretHouse.open(options);
    network = await DaemonNetwork.start(kernel.firewall, { ...options, lock, secretEvents: secrets });
    const { networks } = network;
    const trust = new TrustImageFolder({ kernel, dataDir: config.dataDir });
    for (const name of await trust.sweep()) emit({ type: "swept", what: "trust", name });
    const gateway = kernel.firewall?.subnet.gateway ?? null;
    const injection = new SecretInjection({
      granted: (names) => secrets.granted(names),
      authority: () => secrets.authority,
      gateway,
      images: trust,
      layers,
    });
    const custody = options.custody?.(kernel) ?? null;
    const parts = {
      kernel,
      store,
      catalog: options.catalog,
      layers,
      cells,
      networks,
      injection,
      ...(custody !== null && { custody }),
    };
    const retention = { keepLast: config.keepLast, keepForS: config.keepForS };
    const images = new SnapshotImages(store, layers, () => sandboxes.all());
    const sandboxes: Sandboxes = new Sandboxes(parts, {
      maxSandboxes: config.maxSandboxes,
      upperLimitBytes: config.upperLimitMb * 1_048_576,
      upperBackend: config.upperBackend,
      retention,
      emit,
      forgotten: (released) => images.release(released),
    });
    const recovery = new Recovery(parts, sandboxes, { images, emit });
    kernel.onCellDeath((index, pid) => {
      recovery.cellDied(index, pid).catch((error: unknown) => emit({ type: "cell.failed", error: String(error) }));
    });
    await store.sweepDrafts();
    // before links are opened again, so that nobody gets through without
    await secrets.start({
      setSecrets: (found) => network.setSecrets(found),
      trusted: () => trustedAuthorities(sandboxes),
    });
    await recovery.run();
    for (const name of await store.sweepSubvolumes()) emit({ type: "swept", what: "upper", name });
    cells.fill();
    const collectFiles: CollectFiles = async (wanted) => {
      const [found, unused] = [await options.collectFiles(wanted), await trust.collect(wanted)];
      return { files: [...found.files, ...unused.files], bytes: found.bytes + unused.bytes };
    };
    const { fetchSnapshot } = options;
    const time = timeTravel(parts, sandboxes, {
      images,
      emit,
      retention,
      collectFiles,
      ...(fetchSnapshot && { fetchSnapshot }),
    });
    time.upkeep.poke();
    return new Daemon(options, { kernel, sandboxes, time, cells, layers, network, secrets, store, images });
  }

  async health(): Promise<Health> {
    const modules = await this.#options.catalog.list();
    const secrets = this.secrets.health;
    return {
      status: secrets.usable ? "ok" : "degraded",
      backend: "cell",
      version: this.#options.version,
      tailscale: { status: "off", ip: null },
      sandboxes: this.sandboxes.count,
      modules: modules.length,
      base_ready: modules.some(({ name }) => name.startsWith("000-")),
      pool: { ready: this.#cells.ready, size: this.#options.config.poolSize },
      secrets,
      uptime_s: Math.round((performance.now() - this.#startedAt) / 1000),
    };
  }

  /** Stops commands and the pool; sandboxes stay for the next squashd. When there are none, nothing stays on the host. */
  async close(): Promise<void> {
    this.#stopReaper();
    this.#stopRetention();
    await this.time.upkeep.close();
    await this.sandboxes.close();
    await this.#cells.close();
    await this.#layers.sweep();
    const forget = this.sandboxes.count === 0;
    await this.#network.close({ forget });
    await this.secrets.close();
    await this.#kernel.close({ forget });
  }
}

function trustedAuthorities(sandboxes: Sandboxes): string[] {
  return sandboxes.all().flatMap(({ record, draft }) => [record?.trust?.ca ?? [], draft?.trust?.ca ?? []].flat());
}

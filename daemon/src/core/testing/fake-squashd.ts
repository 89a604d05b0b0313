import { Cells } from "../cells.js";
import type { DomainEvent } from "../events.js";
import { Layers } from "../layers.js";
import type { RetentionLimits, UpperBackend } from "../ports.js";
import { Recovery } from "../recovery.js";
import { Sandboxes } from "../sandboxes.js";
import { noInjection, type Injection } from "../secrets/injection.js";
import { SnapshotImages } from "../snapshot-images.js";
import type { CollectFiles } from "../snapshots.js";
import type { UpkeepOptions } from "../snapshot-upkeep.js";
import { timeTravel, type TimeTravel } from "../time-travel.js";
import { FakeNetworks } from "./fake-networks.js";
import type { FakeMachine } from "./fake-machine.js";

export interface FakeSquashd extends TimeTravel {
  readonly sandboxes: Sandboxes;
  readonly recovery: Recovery;
  readonly cells: Cells;
  readonly layers: Layers;
  readonly networks: FakeNetworks;
  readonly events: readonly DomainEvent[];
  readonly images: SnapshotImages;
}

/** The domain on a fake machine, as `main` puts it together on a real one. */
export function fakeSquashd(
  machine: FakeMachine,
  options: {
    poolSize?: number;
    maxSandboxes?: number;
    upperBackend?: UpperBackend;
    retention?: RetentionLimits;
    upkeep?: UpkeepOptions;
    injection?: (layers: Layers) => Injection;
  } = {},
): FakeSquashd {
  const retention = options.retention ?? { keepLast: 0, keepForS: 0 };
  const events: DomainEvent[] = [];
  const emit = (event: DomainEvent): void => void events.push(event);
  const cells = new Cells(machine, { poolSize: options.poolSize ?? 0, emit });
  const layers = new Layers(machine, { lingerMs: 0 });
  const networks = new FakeNetworks(machine);
  const injection = options.injection?.(layers) ?? noInjection;
  const parts = { kernel: machine, store: machine, catalog: machine, layers, cells, networks, injection };
  const images = new SnapshotImages(machine, layers, () => sandboxes.all());
  const sandboxes: Sandboxes = new Sandboxes(parts, {
    maxSandboxes: options.maxSandboxes ?? 100,
    upperLimitBytes: 1024,
    upperBackend: options.upperBackend ?? "tmpfs",
    retention,
    emit,
    forgotten: (released) => images.release(released),
  });
  const recovery = new Recovery(parts, sandboxes, { images, emit });
  machine.onCellDeath((index, pid) => void recovery.cellDied(index, pid));
  const collectFiles: CollectFiles = () => Promise.resolve({ files: [], bytes: 0 });
  // without a word of a test, the background waits longer than it lasts
  const upkeep = { settleMs: 60_000, ...options.upkeep };
  const time = timeTravel(parts, sandboxes, { images, emit, retention, collectFiles, upkeep });
  return { sandboxes, recovery, cells, layers, networks, events, images, ...time };
}

import { Captures } from "./captures.js";
import type { Emit } from "./events.js";
import { Diffs } from "./diffs.js";
import { Forks } from "./forks.js";
import { ImageMerge } from "./image-merge.js";
import { LabelsInUse } from "./labels-in-use.js";
import type { RetentionLimits } from "./ports.js";
import { Promotions } from "./promotions.js";
import { Quiet } from "./quiet.js";
import { Restack } from "./restack.js";
import type { StageParts } from "./sandbox-stages.js";
import type { Sandboxes } from "./sandboxes.js";
import type { SnapshotImages } from "./snapshot-images.js";
import { SnapshotAdoption } from "./snapshot-adoption.js";
import { SnapshotRetention } from "./snapshot-retention.js";
import { Snapshots, type CollectFiles } from "./snapshots.js";
import { SnapshotUpkeep, type UpkeepOptions } from "./snapshot-upkeep.js";
import { Stacks, type FetchSnapshot } from "./stacks.js";

/** What can be done with the files of sandboxes over time. */
export interface TimeTravel {
  readonly stacks: Stacks;
  readonly snapshots: Snapshots;
  readonly forks: Forks;
  readonly retention: SnapshotRetention;
  readonly promotions: Promotions;
  readonly captures: Captures;
  readonly diffs: Diffs;
  readonly upkeep: SnapshotUpkeep;
  readonly adoption: SnapshotAdoption;
  readonly merge: ImageMerge;
}

export interface TimeTravelOptions {
  readonly images: SnapshotImages;
  readonly emit: Emit;
  /** for sandboxes that say nothing */
  readonly retention: RetentionLimits;
  readonly collectFiles: CollectFiles;
  readonly upkeep?: UpkeepOptions;
  /** Fetches a snapshot that a sandbox does not have here. Throws `snapshot_not_found`. */
  readonly fetchSnapshot?: FetchSnapshot;
}

/** Connects its parts. */
export function timeTravel(parts: StageParts, sandboxes: Sandboxes, options: TimeTravelOptions): TimeTravel {
  const { images, emit, collectFiles } = options;
  const labels = new LabelsInUse();
  const merge = new ImageMerge(parts);
  const upkeep = new SnapshotUpkeep({ ...parts, sandboxes, images, merge, emit }, options.upkeep);
  const retention = new SnapshotRetention({ ...parts, sandboxes, images, labels, emit, usual: options.retention });
  const snapshots = new Snapshots({ ...parts, sandboxes, images, retention, upkeep, collectFiles, emit });
  const quiet = new Quiet(parts.kernel, sandboxes);
  const { fetchSnapshot } = options;
  const restack = new Restack(parts, emit);
  const stacks = new Stacks({ sandboxes, quiet, images, labels, restack, ...(fetchSnapshot && { fetchSnapshot }) });
  const adoption = new SnapshotAdoption({ ...parts, sandboxes });
  const forks = new Forks({ sandboxes, snapshots, images, labels });
  const promotions = new Promotions({ sandboxes, images, labels, merge });
  const captures = new Captures({ ...parts, sandboxes, snapshots, images });
  const diffs = new Diffs({ ...parts, sandboxes, images, snapshots });
  return { stacks, snapshots, forks, diffs, captures, retention, promotions, upkeep, adoption, merge };
}

import type { Emit } from "./events.js";
import { Diffs } from "./diffs.js";
import { Forks } from "./forks.js";
import { Quiet } from "./quiet.js";
import { Restack } from "./restack.js";
import type { StageParts } from "./sandbox-stages.js";
import type { Sandboxes } from "./sandboxes.js";
import type { SnapshotImages } from "./snapshot-images.js";
import { Snapshots } from "./snapshots.js";
import { Stacks } from "./stacks.js";

/** What can be done with the files of sandboxes over time. */
export interface TimeTravel {
  readonly stacks: Stacks;
  readonly snapshots: Snapshots;
  readonly forks: Forks;
  readonly diffs: Diffs;
}

/** Connects its parts. */
export function timeTravel(
  parts: StageParts,
  sandboxes: Sandboxes,
  options: { readonly images: SnapshotImages; readonly emit: Emit },
): TimeTravel {
  const { images, emit } = options;
  const snapshots = new Snapshots({ ...parts, sandboxes, images });
  const quiet = new Quiet(parts.kernel, sandboxes);
  const stacks = new Stacks({ sandboxes, quiet, images, restack: new Restack(parts, emit) });
  const diffs = new Diffs({ ...parts, sandboxes, images, snapshots });
  return { stacks, snapshots, diffs, forks: new Forks({ sandboxes, snapshots, images }) };
}

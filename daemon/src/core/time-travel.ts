import type { Emit } from "./events.js";
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
}

/** Connects its parts. */
export function timeTravel(
  parts: StageParts,
  sandboxes: Sandboxes,
  options: { readonly images: SnapshotImages; readonly emit: Emit },
): TimeTravel {
  const { images, emit } = options;
  const snapshots = new Snapshots({ ...parts, sandboxes, images, emit });
  const quiet = new Quiet(parts.kernel, sandboxes);
  const stacks = new Stacks({ sandboxes, quiet, images, restack: new Restack(parts, emit) });
  return { stacks, snapshots, forks: new Forks({ sandboxes, snapshots, images }) };
}

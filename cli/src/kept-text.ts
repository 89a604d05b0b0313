import type { Retention } from "@squash/sdk";

import { formatSeconds } from "./format.js";

/** Which snapshots of a sandbox stay, in words. */
export function keptText({ keep_last: last, keep_for_s: seconds }: Retention): string {
  const parts = [
    ...(last > 0 ? [`the newest ${last}`] : []),
    ...(seconds > 0 ? [`those of the last ${formatSeconds(seconds)}`] : []),
  ];
  return parts.length === 0 ? "all stay" : `${parts.join(", and ")} stay`;
}

import { buildInChild } from "./build-child.js";
import type { TaskContext } from "./build-task.js";

/** Makes a squashfs image of an erofs one that a capture has written, in a process of its own. Throws as `squashfsOfErofs`. */
export async function buildSquashfs(
  source: { readonly image: string; readonly name: string; readonly dataDir: string; readonly target: string },
  context: Pick<TaskContext, "progress" | "signal">,
): Promise<void> {
  // no module is put in place by it
  await buildInChild({ ...source, kind: "squashfs-of-erofs" }, { ...context, commit: (place) => place() });
}

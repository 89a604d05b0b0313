import type { Credentials } from "./oci/registry-auth.js";
import type { ModuleManifest } from "./manifest.js";
import type { ModuleFormat } from "./module-name.js";

interface CommonTask {
  readonly dataDir: string;
  readonly name: string;
  readonly builder: string;
  readonly formats: readonly ModuleFormat[];
  readonly force: boolean;
  readonly requires: readonly string[];
  readonly conflicts: readonly string[];
}

interface ImageTask extends CommonTask {
  readonly kind: "from-oci";
  readonly reference: string | null;
  readonly layout: string | null;
  readonly archive: string | null;
  /** null for this machine's */
  readonly platform: string | null;
  readonly perLayer: boolean;
  readonly insecure: boolean;
  readonly credentials: Credentials | null;
}

interface LayersTask extends CommonTask {
  readonly kind: "from-layers";
  /** path of an image that a capture has written */
  readonly image: string;
  readonly all: boolean;
  readonly settleSinceS: number | null;
}

/** An image only, which is no module yet. */
interface SquashfsTask {
  readonly kind: "squashfs-of-erofs";
  readonly dataDir: string;
  /** of the module, for messages */
  readonly name: string;
  /** path of an image that a capture has written */
  readonly image: string;
  /** path of the new image */
  readonly target: string;
}

/** What a process of its own builds, since it would hold up the daemon: lists of up to a million files. */
export type BuildTask = ImageTask | LayersTask | SquashfsTask;

export interface TaskContext {
  readonly signal: AbortSignal;
  readonly progress: (line: string, fraction?: number) => void;
  /** Puts a module's finished images in place by calling `place`, while nobody can begin to use it. */
  readonly commit: (place: () => Promise<void>, name: string) => Promise<void>;
}

/** Does a task. Returns the manifests of what it made. Throws `SquashError`. */
export async function runTask(task: BuildTask, context: TaskContext): Promise<readonly ModuleManifest[]> {
  switch (task.kind) {
    // each is loaded when it is wanted: what one needs takes longer than a small module
    case "from-oci": {
      const { buildFromImage } = await import("./oci/build.js");
      const { loadImageFrom } = await import("./oci/load.js");
      const { hostPlatform, parsePlatform } = await import("./oci/platform.js");
      const { platform: text, ...rest } = task;
      const platform = text === null ? hostPlatform() : parsePlatform(text);
      const around = { ...context, dataDir: task.dataDir };
      return buildFromImage((scratch) => loadImageFrom({ ...rest, platform }, { ...around, scratch }), {
        ...rest,
        ...context,
      });
    }
    case "from-layers": {
      const { buildFromLayers } = await import("./from-layers.js");
      const { settleSinceS, ...rest } = task;
      const settle = settleSinceS === null ? {} : { settleSinceS };
      return [await buildFromLayers({ ...rest, ...settle, ...context })];
    }
    case "squashfs-of-erofs": {
      const { squashfsOfErofs } = await import("./squashfs-of-erofs.js");
      await squashfsOfErofs(task, context);
      return [];
    }
  }
}

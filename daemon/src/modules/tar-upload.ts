import { join } from "node:path";
import { SquashError } from "@squash/sdk/errors";
import type { JobPlan } from "../core/jobs.js";
import type { ModuleUpload } from "../core/service.js";
import { scratchDirectory } from "./bases/base.js";
import { packArchive } from "./bases/tarball.js";
import { Cleanup } from "./cleanup.js";
import { builds, type JobWorld } from "./job-plan.js";
import { receiveFile } from "./receive.js";

const maxAtOnce = 4;
let running = 0;

/** Takes a tar file that is sent. Returns how a module is made of it, to whom the file then belongs. Throws as `receiveFile` and `planJob` do. */
export async function takeTar(
  name: string,
  upload: ModuleUpload,
  options: { readonly world: JobWorld; readonly maxBytes: number },
): Promise<JobPlan> {
  const { world, maxBytes } = options;
  const { replace, requires = [], conflicts = [] } = upload;
  const about = { name, builder: "mkmod from-tar", replace, requires, conflicts };
  builds(about, world, () => Promise.reject(new Error("only checked"))); // before all of it is sent
  if (running >= maxAtOnce) {
    throw new SquashError("job_limit", `Cannot take the upload: ${maxAtOnce} run already; try again later`);
  }
  running++;
  const kept = new Cleanup();
  try {
    const scratch = await scratchDirectory(world.dataDir, kept);
    const archive = join(scratch, "archive");
    await receiveFile(upload.body, archive, { ...upload, maxBytes });
    const plan = builds(about, world, (build) => packArchive(archive, scratch, build));
    return { kind: "from-tar", ...plan, release: () => kept[Symbol.asyncDispose]() };
  } catch (error) {
    await kept[Symbol.asyncDispose]();
    throw error;
  } finally {
    running--;
  }
}

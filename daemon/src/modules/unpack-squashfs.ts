import { join } from "node:path";
import { isSquashError, SquashError } from "@squash/sdk/errors";
import { makeWorkshop } from "./confined-tool.js";
import { checkImage } from "./superblock.js";
import { surveySquashfs, unpackBounds } from "./squashfs-survey.js";

const deadlineMs = 30 * 60_000;

export interface UnpackSource {
  /** path of an image that may be anything */
  readonly image: string;
  /** of what it is of, for messages */
  readonly name: string;
  /** path of native/preload/free_marks.c's library */
  readonly marks: string;
}

/**
 * Unpacks a squashfs image with a confined tool, which has no rights on the host, into a directory below `scratch`, whose path is returned: with
 * owners as that tool has them, whiteouts, and overlayfs' marks under the names that anybody may give. Devices are left out. `scratch` must be
 * one that nobody else can enter. Throws `module_invalid` for what is no such image, `build_failed` for what cannot be unpacked, is larger than
 * there is room for, or has owners above 65535, `cancelled`.
 */
export async function unpackSquashfs(
  { image, name, marks }: UnpackSource,
  scratch: string,
  signal: AbortSignal,
): Promise<string> {
  const { format } = await checkImage(image, name);
  if (format !== "squashfs") throw new SquashError("module_invalid", `Cannot take "${name}": it is no squashfs image`);
  const { work, run } = await makeWorkshop(scratch, { input: image, preload: marks });
  const limits = { deadlineMs, signal };
  const devices = await surveySquashfs(run, { image, name, bounds: await unpackBounds(work) }, limits);
  const directory = join(work, "tree");
  const without = devices.length > 0 ? ["-excludes"] : [];
  const argv = ["-quiet", "-no-progress", "-strict-errors", ...without, "-dest", directory, image, ...devices];
  await run(["env", `LD_PRELOAD=${marks}`, "unsquashfs", ...argv], {
    op: "unpack squashfs image of",
    target: name,
    ...limits,
  });
  return directory;
}

/** Whether what failed is this machine, such as for lack of room, in distinction to the image. */
export function isOurFault(error: unknown): boolean {
  if (!isSquashError(error) || error.code !== "build_failed") return false;
  const { errno, stderr } = error.details;
  if (["ENOSPC", "EDQUOT", "EFBIG"].includes(String(errno))) return true;
  const said = `${error.message}\n${typeof stderr === "string" ? stderr : ""}`;
  // 127 is what `env` says of a program that is not installed
  return /No space left on device|Disk quota exceeded|the most for the space that is free|status 127|did not end within/.test(
    said,
  );
}

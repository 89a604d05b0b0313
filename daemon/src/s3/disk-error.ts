import { SquashError } from "@squash/sdk/errors";

const diskErrors = ["ENOSPC", "EDQUOT", "EFBIG", "EIO", "EROFS"];

/** An error as it is, or `build_failed` where it is one of the disk that what comes from the bucket is kept on. */
export function diskError(error: unknown): unknown {
  const { code = "", message } = error as NodeJS.ErrnoException;
  if (!diskErrors.includes(code)) return error;
  return new SquashError("build_failed", `Cannot keep what comes from the bucket: ${message}`, { cause: error });
}

export function isDiskError(error: unknown): boolean {
  return error instanceof SquashError && error.code === "build_failed";
}

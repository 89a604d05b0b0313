import { createHash } from "node:crypto";
import { closeSync, constants, openSync, readSync } from "node:fs";
import { parentPort } from "node:worker_threads";
import type { DigestAnswer, DigestRequest } from "./growing-digest.js";

// What `GrowingDigest` starts: reads one file from its beginning on, as far as it is told that there is something.
const buffer = Buffer.alloc(1_048_576);
const hash = createHash("sha256");
let file = -1;
let position = 0;

function follow(upTo: number): void {
  while (position < upTo) {
    const read = readSync(file, buffer, 0, Math.min(buffer.byteLength, upTo - position), position);
    if (read === 0) throw Object.assign(new Error("the file became shorter"), { code: "EIO" });
    hash.update(buffer.subarray(0, read));
    position += read;
  }
}

function answer(request: DigestRequest): DigestAnswer | null {
  if (request.kind === "open") file = openSync(request.path, constants.O_RDONLY | constants.O_NOFOLLOW);
  if (request.kind === "grown") follow(request.upTo);
  if (request.kind !== "end") return null;
  closeSync(file);
  return { kind: "end", sha256: hash.digest("hex") };
}

parentPort?.on("message", (request: DigestRequest) => {
  try {
    const said = answer(request);
    if (said !== null) parentPort?.postMessage(said);
  } catch (error) {
    parentPort?.postMessage({ kind: "error", message: (error as Error).message } satisfies DigestAnswer);
  }
});

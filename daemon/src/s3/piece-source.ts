import { createRequire } from "node:module";
import { Worker } from "node:worker_threads";
import { SquashError } from "@squash/sdk/errors";
import type { Piece } from "./piece-reader.js";
import type { Cut } from "./pieces.js";

export interface PieceRequest {
  readonly path: string;
  readonly cut: Cut;
}

export type PieceAnswer =
  | { readonly kind: "piece"; readonly piece: Piece }
  | { readonly kind: "end"; readonly sha256: string | null; readonly size: number }
  | { readonly kind: "error"; readonly message: string; readonly code: string };

/** What is told last of a file. */
export interface FileEnd {
  readonly sha256: string | null;
  readonly size: number;
}

// by name, so that it is found from the sources as well, where only the compiled thread can run
const thread = createRequire(import.meta.url).resolve("#piece-thread");

/**
 * Pieces of a file as they are found, in a thread of their own, since digests take a second for each GB; then its end. Throws `s3_failed` where
 * the file cannot be read, `cancelled`.
 */
export async function* piecesOf(request: PieceRequest, signal: AbortSignal): AsyncGenerator<Piece, FileEnd> {
  if (signal.aborted) throw cancelled();
  const worker = new Worker(thread, { name: "pieces", resourceLimits: { maxOldGenerationSizeMb: 64 } });
  const waiting: PieceAnswer[] = [];
  let wake: (() => void) | null = null;
  const tell = (answer: PieceAnswer): void => {
    waiting.push(answer);
    wake?.();
  };
  const failed = (error: Error): void => tell({ kind: "error", message: error.message, code: "EIO" });
  const abort = (): void => tell({ kind: "error", message: "cancelled", code: "ECANCELED" });
  worker.on("message", tell);
  worker.on("error", failed);
  signal.addEventListener("abort", abort, { once: true });
  worker.postMessage(request);
  try {
    for (;;) {
      for (let answer = waiting.shift(); answer !== undefined; answer = waiting.shift()) {
        if (isAborted(signal)) throw cancelled();
        if (answer.kind === "error")
          throw new SquashError("s3_failed", `Cannot read "${request.path}": ${answer.message}`);
        if (answer.kind === "end") return { sha256: answer.sha256, size: answer.size };
        yield answer.piece;
      }
      await new Promise<void>((resolve) => (wake = resolve));
      wake = null;
    }
  } finally {
    signal.removeEventListener("abort", abort);
    await worker.terminate();
  }
}

function cancelled(): SquashError {
  return new SquashError("cancelled", "Cannot read the file for the bucket: cancelled");
}

/** Asked anew: it may have become so while somebody waited. */
function isAborted(signal: AbortSignal): boolean {
  return signal.aborted;
}

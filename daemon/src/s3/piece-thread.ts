import { parentPort } from "node:worker_threads";
import { readPieces } from "./piece-reader.js";
import type { PieceAnswer, PieceRequest } from "./piece-source.js";

// What `PieceSource` starts: reads one file after another.
const say = (answer: PieceAnswer): void => parentPort?.postMessage(answer);
parentPort?.on("message", ({ path, cut }: PieceRequest) => {
  try {
    const pieces = readPieces(path, cut);
    let step = pieces.next();
    for (; step.done !== true; step = pieces.next()) say({ kind: "piece", piece: step.value });
    say({ kind: "end", ...step.value });
  } catch (error) {
    const { message, code } = error as NodeJS.ErrnoException;
    say({ kind: "error", message, code: code ?? "EIO" });
  }
});

import { SquashError, isSquashError } from "@squash/sdk/errors";
import { errorText } from "../core/error-text.js";
import { LineReader, lineOf, type FromBuilder, type ToBuilder } from "./build-messages.js";
import { runTask, type BuildTask } from "./build-task.js";

/** The whole of a process that builds for squashd, which it speaks with by standard input and output. */

const abort = new AbortController();
const reader = new LineReader();
let giveTask: (task: BuildTask) => void = () => undefined;
const task = new Promise<BuildTask>((resolve) => (giveTask = resolve));
let hasTask = false;
let answer: (message: ToBuilder) => void = () => undefined;

process.stdin.setEncoding("utf8");
process.stdin.on("data", (text: string) => {
  for (const message of reader.add(text)) {
    if (hasTask) answer(message as ToBuilder);
    else giveTask(message as BuildTask);
    hasTask = true;
  }
});
// squashd is gone, or wants no more of it
process.stdin.on("end", () => abort.abort());
process.on("SIGTERM", () => abort.abort());
process.on("SIGINT", () => undefined); // of a terminal, to the whole group; squashd decides

function say(message: FromBuilder): Promise<void> {
  return new Promise((resolve) => {
    process.stdout.write(lineOf(message), () => resolve());
  });
}

async function commit(place: () => Promise<void>, name: string): Promise<void> {
  const answered = new Promise<ToBuilder>((resolve, reject) => {
    answer = resolve;
    abort.signal.addEventListener("abort", () => reject(cancelled()), { once: true });
    if (abort.signal.aborted) reject(cancelled());
  });
  await say({ say: "finished", name });
  const message = await answered;
  if (message.say === "refused") throw new SquashError(message.code, message.message);
  await place();
  await say({ say: "placed" });
}

function cancelled(): SquashError {
  return new SquashError("cancelled", "Cannot build the module: cancelled");
}

function failureOf(error: unknown): FromBuilder {
  const message = errorText(error);
  if (abort.signal.aborted) return { say: "failed", code: "cancelled", message };
  if (isSquashError(error)) return { say: "failed", code: error.code, message };
  // of the operating system, such as a full disk, in distinction to a bug
  if (error instanceof Error && "errno" in error) return { say: "failed", code: "build_failed", message };
  return { say: "failed", code: "internal", message: error instanceof Error ? (error.stack ?? message) : message };
}

try {
  const progress = (line: string, fraction?: number): void =>
    void say({ say: "progress", line, ...(fraction === undefined ? {} : { fraction }) });
  await say({ say: "done", manifests: await runTask(await task, { signal: abort.signal, progress, commit }) });
} catch (error) {
  await say(failureOf(error));
}
process.exit();

#!/usr/bin/env node
import { Client } from "@squash/sdk";

import { makeColors } from "./colors.js";
import { loadEnvironment } from "./environment.js";
import { Interruption } from "./exit-status.js";
import { runProgram } from "./program.js";
import { InstalledSquashd } from "./squashd.js";

const environment = loadEnvironment();
const interruption = new AbortController();
for (const signal of ["SIGINT", "SIGTERM"] as const) {
  // once: the second one ends the program at once
  process.once(signal, () => interruption.abort(new Interruption(signal)));
}
for (const stream of [process.stdout, process.stderr]) {
  stream.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code !== "EPIPE") throw error;
    process.exit(); // the reader has seen enough, as in `sq list | head`
  });
}

process.exitCode = await runProgram(process.argv.slice(2), {
  client: () => new Client({ url: environment.url, token: environment.token }),
  squashd: new InstalledSquashd(environment.forDaemon, interruption.signal),
  stdin: () => process.stdin,
  stdout: process.stdout,
  stderr: process.stderr,
  isTerminal: process.stderr.isTTY && !environment.isPlain,
  colors: makeColors(process.stdout.isTTY && !environment.isPlain),
  signal: interruption.signal,
  now: () => new Date(),
});

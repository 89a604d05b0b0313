#!/usr/bin/env node
import { freeBuffersWhereMade } from "./buffer-memory.js";
import { loadConfig, type Config } from "./config.js";
import { readVersion } from "./version.js";

const usage = `Usage: squashd                     serve the API until SIGTERM or SIGINT
       squashd mkbase <kind> ...   build a base module
       squashd mkmod from-oci ...  build modules of a container image
       squashd doctor [--json]     check whether squashd can work on this machine
       squashd doctor --remove-network   take the firewall's rules and all else of sandboxes' network off it
       squashd --version
Settings come from the environment: see docs/operations.md.
`;

const io = {
  out: (text: string): void => void process.stdout.write(text),
  err: (text: string): void => void process.stderr.write(text),
};

async function run([verb, ...rest]: readonly string[], config: () => Config): Promise<number> {
  const stop = new AbortController();
  const stopped = new Promise<NodeJS.Signals>((resolve) => {
    for (const signal of ["SIGTERM", "SIGINT"] as const) {
      process.on(signal, () => {
        stop.abort();
        resolve(signal);
      });
    }
  });
  // each is loaded when it is asked for: what they need is a good part of a second's work, for which the others do not wait
  switch (verb) {
    case undefined: {
      const { serve } = await import("./serve.js");
      return serve(config(), stopped);
    }
    case "mkbase": {
      const { mkbaseCommand } = await import("./modules/mkbase-command.js");
      return mkbaseCommand(rest, io, config(), stop.signal);
    }
    case "mkmod": {
      const { mkmodCommand } = await import("./modules/mkmod-command.js");
      return mkmodCommand(rest, io, config(), stop.signal);
    }
    case "doctor": {
      const { doctorCommand } = await import("./doctor.js");
      return doctorCommand(rest, io, config());
    }
    case "--version":
      io.out(`${readVersion()}\n`);
      return 0;
    case "--help":
      io.out(usage);
      return 0;
    default:
      io.err(`squashd: there is no "${verb}"\n${usage}`);
      return 2;
  }
}

freeBuffersWhereMade();
try {
  process.exitCode = await run(process.argv.slice(2), () => loadConfig(process.env));
} catch (error) {
  io.err(`squashd: ${error instanceof Error ? error.message : String(error)}\n`);
  if (process.env["SQUASH_LOG_LEVEL"] === "debug" && error instanceof Error) io.err(`${error.stack ?? ""}\n`);
  process.exitCode = 1;
}
// a handle that somebody forgot must not keep a daemon that was told to end
process.exit();

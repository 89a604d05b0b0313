import type { Config } from "./config.js";
import { LinuxKernel } from "./kernel/kernel.js";

/** Starts sq-host as the settings say. Throws `SquashError` that says what this machine lacks. */
export function startKernel(config: Config, hostRestarted: (reason: string) => void): Promise<LinuxKernel> {
  const { hostBinary: binary, runDir, dataDir, uidBase, subnet, cgroupRoot } = config;
  return LinuxKernel.start({ binary, runDir, dataDir, uidBase, subnet, cgroupRoot, hostRestarted });
}

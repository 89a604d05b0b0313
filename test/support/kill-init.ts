import type { SandboxInfo } from "@squash/sdk/protocol";

/** Kills a sandbox's init, and with it all that runs there. Throws where it has none: a missing process id would mean the whole machine. */
export function killInit({ id, pid, state }: Pick<SandboxInfo, "id" | "pid" | "state">): void {
  if (pid === null) throw new Error(`sandbox "${id}" has no init: it is ${state}`);
  process.kill(pid, "SIGKILL");
}

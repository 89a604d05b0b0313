import { SquashError } from "@squash/sdk/errors";
import type { Config } from "./config.js";
import { Forwarding } from "./kernel/network/forwarding.js";
import { Forwarding6 } from "./kernel/network/forwarding6.js";
import { lockNetwork } from "./kernel/network/lock.js";
import { startKernel } from "./start-kernel.js";

/**
 * Takes everything of the sandboxes' network off the machine: the firewall's table, the gateway's address, forwarding that squashd switched
 * on. Refuses while a squashd runs or a sandbox lives, whose link would be open then. Idempotent.
 */
export async function removeNetwork(config: Config): Promise<void> {
  const { subnet, runDir } = config;
  if (subnet === null) throw new SquashError("invalid_request", "Cannot remove the network: SQUASH_SUBNET is none");
  const lock = await lockNetwork();
  try {
    const kernel = await startKernel(config, () => undefined);
    const cells = await kernel.cellsInCgroups();
    if (cells.length > 0) {
      await kernel.close({ forget: false });
      throw new SquashError(
        "sandbox_exists",
        `Cannot remove the network: ${cells.length} cells are left, whose links it closes; start squashd and destroy its sandboxes first`,
      );
    }
    await kernel.firewall?.unload();
    await new Forwarding(runDir).close();
    await new Forwarding6(runDir).close();
    await kernel.close({ forget: true });
  } finally {
    lock.close();
  }
}

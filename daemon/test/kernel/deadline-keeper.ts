import { join } from "node:path";
import { repositoryRoot } from "../../../test/support/root.js";

/**
 * Stands for squashd in a process of its own, which a test stops or kills: makes cell 0, sets its deadline, prints its init's process id, and puts
 * the deadline off for as long as it runs. Its only argument is JSON.
 */
export interface KeeperOptions {
  readonly binary: string;
  readonly runDir: string;
  readonly dataDir: string;
  readonly uidBase: number;
  readonly cgroupRoot: string;
  readonly deadlineMs: number;
  readonly everyMs: number;
}

const options = JSON.parse(process.argv[2] ?? "") as KeeperOptions;
const built = join(repositoryRoot, "daemon/dist/kernel/kernel.js");
const { LinuxKernel } = (await import(built)) as typeof import("../../src/kernel/kernel.js");
const kernel = await LinuxKernel.start({ ...options, subnet: null, hostRestarted: () => undefined });
const { pid } = await kernel.makeCell(0, { nestedUserns: false });
const putOff = (): Promise<void> => kernel.setDeadline(0, kernel.bootMs() + options.deadlineMs);
await putOff();
process.stdout.write(`${pid} ${(await kernel.hostPid()) ?? ""}\n`);
setInterval(() => void putOff(), options.everyMs);

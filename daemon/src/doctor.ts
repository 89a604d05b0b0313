import type { DoctorCheck } from "@squash/sdk/protocol";
import type { Subnet } from "./core/egress/firewall.js";
import type { UpperBackend } from "./core/ports.js";
import { hostChecks } from "./doctor/host-checks.js";
import { kernelChecks } from "./doctor/kernel-checks.js";
import { networkChecks } from "./doctor/network-checks.js";
import { removeNetwork } from "./remove-network.js";
import type { Config } from "./config.js";

interface DoctorSettings {
  readonly dataDir: string;
  readonly runDir: string;
  /** name of the cgroup that holds all sandboxes */
  readonly cgroupRoot: string;
  /** path of the sq-host program */
  readonly hostBinary: string;
  readonly subnet: Subnet | null;
  readonly upperBackend: UpperBackend;
}

/** Looks whether squashd can work on this machine. Changes nothing, and reports what it cannot look at as lacking. */
async function doctorChecks(settings: DoctorSettings): Promise<DoctorCheck[]> {
  return [...(await kernelChecks(settings)), ...(await networkChecks(settings)), ...(await hostChecks(settings))];
}

/** `squashd doctor`. Returns the exit status: 0 all that is required is there, 1 not, 2 wrong usage. */
export async function doctorCommand(
  args: readonly string[],
  io: { out(text: string): void; err(text: string): void },
  settings: Config,
): Promise<number> {
  const stray = args.find((arg) => !["--json", "--remove-network"].includes(arg));
  if (stray !== undefined || args.length > 1) {
    io.err(
      `squashd doctor: there is no "${stray ?? args.join(" ")}"\nUsage: squashd doctor [--json | --remove-network]\n`,
    );
    return 2;
  }
  if (args[0] === "--remove-network") {
    await removeNetwork(settings);
    io.out("nothing of the sandboxes' network is left on this machine; the next start of squashd makes it again\n");
    return 0;
  }
  const checks = await doctorChecks(settings);
  io.out(args.includes("--json") ? `${JSON.stringify(checks, null, 2)}\n` : renderChecks(checks));
  return checks.some(({ ok, required }) => required && !ok) ? 1 : 0;
}

function renderChecks(checks: readonly DoctorCheck[]): string {
  const width = Math.max(...checks.map(({ name }) => name.length));
  return checks
    .map(
      ({ name, ok, required, detail }) =>
        `${ok ? "ok  " : required ? "FAIL" : "note"}  ${name.padEnd(width)}  ${detail}\n`,
    )
    .join("");
}

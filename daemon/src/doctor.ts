import type { DoctorCheck } from "@squash/sdk/protocol";
import { hostChecks } from "./doctor/host-checks.js";
import { kernelChecks } from "./doctor/kernel-checks.js";

export interface DoctorSettings {
  readonly dataDir: string;
  readonly runDir: string;
  /** name of the cgroup that holds all sandboxes */
  readonly cgroupRoot: string;
  /** path of the sq-host program */
  readonly hostBinary: string;
}

/** Looks whether squashd can work on this machine. Changes nothing, and reports what it cannot look at as lacking. */
async function doctorChecks(settings: DoctorSettings): Promise<DoctorCheck[]> {
  return [...(await kernelChecks(settings)), ...(await hostChecks(settings))];
}

/** `squashd doctor`. Returns the exit status: 0 all that is required is there, 1 not, 2 wrong usage. */
export async function doctorCommand(
  args: readonly string[],
  io: { out(text: string): void; err(text: string): void },
  settings: DoctorSettings,
): Promise<number> {
  const stray = args.find((arg) => arg !== "--json");
  if (stray !== undefined) {
    io.err(`squashd doctor: there is no "${stray}"\nUsage: squashd doctor [--json]\n`);
    return 2;
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

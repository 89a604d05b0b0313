import { spawn } from "node:child_process";
import { SquashError } from "@squash/sdk/errors";

const timeoutMs = 20_000;
const maxOutput = 1_048_576;

/** Runs nft with a text as its input; only at a start and at an end, never while sandboxes come and go. Throws `SquashError` "kernel". */
export async function runNft(args: readonly string[], input: string, what: string): Promise<void> {
  await nft(args, input, what);
}

/** What nft prints. Throws `SquashError` "kernel". */
export function readNft(args: readonly string[]): Promise<string> {
  return nft(args, "", "read the firewall's rules");
}

function nft(args: readonly string[], input: string, what: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn("nft", args, {
      stdio: ["pipe", "pipe", "pipe"],
      env: { PATH: "/usr/sbin:/usr/bin:/sbin:/bin", LC_ALL: "C" },
      timeout: timeoutMs,
      killSignal: "SIGKILL",
    });
    let [stdout, stderr] = ["", ""];
    child.stdout.setEncoding("utf8").on("data", (text: string) => (stdout = (stdout + text).slice(0, maxOutput)));
    child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr = (stderr + text).slice(0, 2_000)));
    child.stdin.on("error", () => undefined); // it ended before it had read everything, and says why by its status
    child.on("error", (cause) => {
      const missing = (cause as NodeJS.ErrnoException).code === "ENOENT";
      const hint = missing ? "there is no nft; apt-get install nftables" : cause.message;
      reject(new SquashError("kernel", `Cannot ${what}: ${hint}`, { cause }));
    });
    child.on("close", (status, signal) => {
      if (status === 0) return resolve(stdout);
      const reason = stderr.trim().split("\n").slice(0, 3).join("; ");
      reject(new SquashError("kernel", `Cannot ${what}: nft ended with ${signal ?? `status ${status}`}: ${reason}`));
    });
    child.stdin.end(input);
  });
}

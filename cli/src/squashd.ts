import { spawn, type StdioOptions } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { constants } from "node:os";
import { createRequire } from "node:module";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

/** The daemon's own program, run for what needs no running daemon. */
export interface Squashd {
  /** Runs it on this terminal; returns its exit status, 128+N where signal N ended it. Throws an `Interruption` when interrupted. */
  run(args: readonly string[]): Promise<number>;
  /** Runs it and returns what it wrote to standard output. Throws when that is larger than 1 MiB. */
  read(args: readonly string[]): Promise<string>;
}

const maxOutputBytes = 1024 * 1024;

/** The program that is installed beside the CLI. Either method throws when there is none. */
export class InstalledSquashd implements Squashd {
  readonly #env: NodeJS.ProcessEnv;
  readonly #signal: AbortSignal;
  readonly #find: () => string;

  constructor(env: NodeJS.ProcessEnv, signal: AbortSignal, find: () => string = findSquashd) {
    this.#env = env;
    this.#signal = signal;
    this.#find = find;
  }

  async run(args: readonly string[]): Promise<number> {
    return (await this.#start(args, "inherit")).status;
  }

  async read(args: readonly string[]): Promise<string> {
    return (await this.#start(args, ["inherit", "pipe", "inherit"])).output;
  }

  async #start(args: readonly string[], stdio: StdioOptions): Promise<{ status: number; output: string }> {
    this.#signal.throwIfAborted();
    const child = spawn(process.execPath, [this.#find(), ...args], { env: this.#env, stdio });
    // Ctrl-C reaches the program by the terminal as well; a second signal of the kind that ends it is harmless
    const stop = (): void => void child.kill("SIGTERM");
    this.#signal.addEventListener("abort", stop);
    try {
      const end = await new Promise<{ status: number; output: string }>((settle, reject) => {
        let output = "";
        child.stdout?.setEncoding("utf8").on("data", (text: string) => {
          output += text;
          if (output.length <= maxOutputBytes) return;
          child.kill("SIGKILL");
          reject(new Error(`Cannot read the output of squashd ${args.join(" ")}: it is larger than 1 MiB`));
        });
        child.on("error", reject);
        child.on("close", (code, signal) => settle({ status: code ?? 128 + signalNumber(signal), output }));
      });
      this.#signal.throwIfAborted();
      return end;
    } finally {
      this.#signal.removeEventListener("abort", stop);
    }
  }
}

/** Path of squashd's program: of the installed package, or else of this source tree. Throws when neither is there. */
function findSquashd(): string {
  const here = dirname(fileURLToPath(import.meta.url));
  const folders = createRequire(import.meta.url).resolve.paths("@squash/daemon") ?? [];
  // looked up by hand: the package does not export its package.json, so that resolving it by name fails
  for (const folder of folders) {
    const manifest = join(folder, "@squash/daemon/package.json");
    if (!existsSync(manifest)) continue;
    const { bin } = JSON.parse(readFileSync(manifest, "utf8")) as { bin?: Record<string, string> };
    const program = resolve(dirname(manifest), bin?.["squashd"] ?? "dist/main.js");
    if (existsSync(program)) return program;
  }
  const program = resolve(here, "../../daemon/dist/main.js");
  if (existsSync(program)) return program;
  throw new Error(`Cannot find squashd: "${program}" is missing, install or build it on this host`);
}

function signalNumber(signal: NodeJS.Signals | null): number {
  return signal === null ? 0 : constants.signals[signal];
}

import { execFileSync, spawn, spawnSync, type ChildProcess } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { existsSync, mkdirSync, readFileSync, renameSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { text } from "node:stream/consumers";
import type { Sandbox } from "@squash/sdk";
import type { TestNetns } from "./netns.js";
import { repositoryRoot } from "./root.js";

const source = join(repositoryRoot, "test/probe/raw.c");
const cache = join(repositoryRoot, "build/test-probe");
const inside = "/root/raw";
const timeoutMs = 20_000;

/** The program, built when it is not there yet, or when its source is another one. */
function rawProgram(): string {
  const path = join(cache, `${createHash("sha256").update(readFileSync(source)).digest("hex").slice(0, 16)}.raw`);
  if (existsSync(path)) return path;
  mkdirSync(cache, { recursive: true });
  const draft = `${path}.draft-${process.pid}`;
  const flags = ["-static", "-O1", "-Wall", "-Wextra", "-Werror"];
  execFileSync("musl-gcc", [...flags, "-o", draft, source], { stdio: ["ignore", "ignore", "inherit"] });
  renameSync(draft, path);
  return path;
}

function run(netns: TestNetns, args: readonly string[], packets: readonly Buffer[]): string {
  const input = packets.map((packet) => `${packet.toString("hex")}\n`).join("");
  const [program, all] = netns.enter(rawProgram(), args);
  const { stdout, stderr } = spawnSync(program, all, { encoding: "utf8", input, timeout: timeoutMs });
  return stdout.trim() || stderr.trim();
}

/** Sends IPv4 packets with the headers that they have, as the host's root in a namespace. Returns "sent N". */
export function sendPackets(netns: TestNetns, packets: readonly Buffer[], times = 1): string {
  return run(netns, ["ip", String(times)], packets);
}

/** Begins to send packets, `times` over; its end is "sent N". */
export function startSending(netns: TestNetns, packets: readonly Buffer[], times: number): Promise<string> {
  const [program, args] = netns.enter(rawProgram(), ["ip", String(times)]);
  const child = spawn(program, args, { stdio: ["pipe", "pipe", "inherit"], timeout: timeoutMs, killSignal: "SIGKILL" });
  child.stdin.end(packets.map((packet) => `${packet.toString("hex")}\n`).join(""));
  return text(child.stdout).then((said) => said.trim());
}

/** The same with Ethernet frames. */
export function sendFrames(netns: TestNetns, interfaceName: string, frames: readonly Buffer[]): string {
  return run(netns, ["frame", interfaceName, "1"], frames);
}

/** Tries the same from inside, as the sandbox's root. Returns "sent N" or "refused: ERRNO". */
export async function sendFromInside(sandbox: Sandbox, kind: "ip" | "frame", packet: Buffer): Promise<string> {
  const program = readFileSync(rawProgram()).toString("base64");
  await sandbox.exec(`test -x ${inside} || { base64 -d > ${inside} && chmod 755 ${inside}; }`, { stdin: program });
  const args = kind === "ip" ? ["ip", "1"] : ["frame", "eth0", "1"];
  const result = await sandbox.exec([inside, ...args], { stdin: `${packet.toString("hex")}\n` });
  return result.stdout.trim() || result.stderr.trim();
}

/** Hears everything that arrives at an interface. */
export class Tap implements AsyncDisposable {
  readonly #child: ChildProcess;
  readonly frames: Buffer[] = [];

  private constructor(child: ChildProcess) {
    this.#child = child;
  }

  static async open(netns: TestNetns, interfaceName: string): Promise<Tap> {
    const [program, args] = netns.enter(rawProgram(), ["hear", interfaceName]);
    const child = spawn(program, args, { stdio: ["ignore", "pipe", "inherit"] });
    const tap = new Tap(child);
    await new Promise<void>((resolve, reject) => {
      child.on("exit", (status) => reject(new Error(`the tap ended with status ${status}`)));
      createInterface({ input: child.stdout }).on("line", (line) => {
        if (line === "ready") resolve();
        else tap.frames.push(Buffer.from(line, "hex"));
      });
    });
    return tap;
  }

  /** Whether something with these bytes arrives, or has arrived, within `ms`. */
  async hears(bytes: Buffer | string, ms: number): Promise<boolean> {
    const deadline = Date.now() + ms;
    for (;;) {
      if (this.frames.some((each) => each.includes(bytes))) return true;
      if (Date.now() > deadline) return false;
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    this.#child.removeAllListeners("exit");
    const gone = once(this.#child, "exit");
    this.#child.kill("SIGKILL");
    await gone;
  }
}

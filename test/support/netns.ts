import { execFileSync } from "node:child_process";
import { existsSync, rmSync, writeFileSync } from "node:fs";

/** A network namespace of a test's own, in which a squashd changes routes and firewall rules as it likes, and nothing of the machine's. */
export class TestNetns {
  readonly path: string;
  readonly #isOurs: boolean;

  /** `path` is where its file is to be; without one it is the namespace that this process is in. */
  constructor(path?: string) {
    this.path = path ?? `/proc/${process.pid}/ns/net`;
    this.#isOurs = path !== undefined;
  }

  /** Makes it, with its loopback interface up; idempotent. */
  make(): void {
    if (existsSync(this.path)) return;
    writeFileSync(this.path, "");
    execFileSync("unshare", [`--net=${this.path}`, "ip", "link", "set", "lo", "up"]);
  }

  /** The command line that runs a program in it. */
  enter(program: string, args: readonly string[]): [string, string[]] {
    return ["nsenter", [`--net=${this.path}`, program, ...args]];
  }

  /** Runs a program in it to its end; returns what it printed. Throws when it fails. */
  run(program: string, ...args: readonly string[]): string {
    const [command, all] = this.enter(program, args);
    return execFileSync(command, all, { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
  }

  /** Names of the links of cells that are there. */
  links(): string[] {
    const text = this.run("ip", "-o", "link");
    return [...text.matchAll(/^\d+: (sq\d+h)@/gm)].map((match) => match[1] ?? "").toSorted();
  }

  /** Removes it; what is in it goes as well. Idempotent. */
  [Symbol.dispose](): void {
    if (!this.#isOurs || !existsSync(this.path)) return;
    execFileSync("umount", [this.path]);
    rmSync(this.path);
  }
}

import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { a, usualZone, type TestInternet } from "../internet.js";
import type { Zone } from "../internet-host.js";
import { makeRepository } from "../package-bases.js";
import { repositoryRoot } from "../root.js";
import type { Received, ServerOptions } from "./server/wire.js";

/** Where the servers are: those that secrets are for, and an attacker's. */
export const serverPlaces = { good: "93.184.216.70", evil: "93.184.216.71" } as const;

/** What is real. Nothing of it may be seen in a sandbox. */
export const real = {
  password: "real-password-0f5cba",
  aws: { accessKeyId: "AKIAREALREALREALREAL", secretAccessKey: "real/secret+access/key0123456789abcdefgh" },
  oauth: { clientId: "real-client", clientSecret: "real-client-secret", refreshToken: "real-refresh-token" },
} as const;

const goodNames = ["api", "h1", "hostile", "other", "wrong.bad", "expired.bad", "unknown.bad"].map(
  (name) => `${name}.example.com`,
);
/** its names */
export const goodZone: Zone = {
  ...Object.fromEntries(goodNames.map((name) => [name, a(name, serverPlaces.good)])),
  "evil.example.net": a("evil.example.net", serverPlaces.evil),
};
const settleMs = 60;

/** The servers of server/server-host.ts beside a tests' internet, with names, and what has arrived at them. */
export class SecretServer implements AsyncDisposable {
  readonly received: Received[] = [];
  readonly #child: ChildProcess;

  private constructor(child: ChildProcess) {
    this.#child = child;
  }

  /** `folder` is where it may put files. The internet must run. */
  static async start(internet: TestInternet, folder: string): Promise<SecretServer> {
    const [repositories, packages] = [join(folder, "repositories"), join(folder, "packages")];
    for (const each of [repositories, packages]) mkdirSync(each, { recursive: true });
    makeGitRepository(repositories);
    makeRepository(packages, [{ name: "sample", version: "1.5" }]);
    const addresses = Object.values(serverPlaces);
    for (const address of addresses) internet.run("ip", "address", "add", `${address}/32`, "dev", "lo");
    await internet.setZone({ ...usualZone, ...goodZone });
    const options: ServerOptions = { addresses, ...real, repositories, packages };
    const script = join(repositoryRoot, "build/test/test/support/secrets/server/server-host.js");
    const [program, args] = internet.netns.enter(process.execPath, [script, JSON.stringify(options)]);
    const child = spawn(program, args, { stdio: ["ignore", "inherit", "inherit", "ipc"] });
    const server = new SecretServer(child);
    await new Promise<void>((resolve, reject) => {
      child.on("exit", (status) => reject(new Error(`the server ended with status ${status}`)));
      child.on("message", (message: Received | "ready" | "settled") => {
        if (message === "ready") resolve();
        else if (message !== "settled") server.received.push(message);
      });
    });
    return server;
  }

  /** Waits until whatever is on its way to it has been recorded. */
  async settled(): Promise<void> {
    await new Promise((resolve) => setTimeout(resolve, settleMs));
    await this.#heard();
  }

  /** Waits until it has told all that it knows. */
  async #heard(): Promise<void> {
    const told = new Promise<void>((resolve) => {
      const look = (message: unknown): void => {
        if (message !== "settled") return;
        this.#child.off("message", look);
        resolve();
      };
      this.#child.on("message", look);
    });
    this.#child.send("settled?");
    await told;
  }

  /** Runs it; returns the requests and messages that arrived meanwhile. */
  async arrivalsOf(work: () => Promise<unknown>): Promise<Received[]> {
    await this.#heard();
    const from = this.received.length;
    await work();
    await this.settled();
    return this.received.slice(from).filter(({ kind }) => kind !== "hello");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.exitCode !== null) return;
    this.#child.removeAllListeners("exit");
    const gone = once(this.#child, "exit");
    this.#child.disconnect();
    await gone;
  }
}

/** First value of a header of that name. */
export function header({ headers }: Received, name: string): string | undefined {
  return headers.find(([each]) => each.toLowerCase() === name)?.[1];
}

function makeGitRepository(folder: string): void {
  const [bare, work] = [join(folder, "sample.git"), join(folder, "work")];
  const git = (cwd: string, ...args: readonly string[]): void => {
    const identity = ["-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "init.defaultBranch=main"];
    execFileSync("git", [...identity, ...args], { cwd, stdio: "ignore" });
  };
  mkdirSync(work);
  git(work, "init");
  writeFileSync(join(work, "README"), "a sample\n");
  git(work, "add", "README");
  git(work, "commit", "-m", "a sample");
  git(folder, "clone", "--bare", work, bare);
  git(bare, "config", "http.receivepack", "true");
}

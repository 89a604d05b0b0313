import { readFile, stat } from "node:fs/promises";
import { isIP } from "node:net";

/** as resolv.conf(5) has it */
const maxServers = 3;
const maxFileSize = 64 * 1024;
const checkEveryMs = 1000;

/** The host's own resolvers, as a file in the format of resolv.conf(5) names them, followed as it changes. */
export class HostServers {
  readonly #path: string;
  readonly #now: () => number;
  #servers: readonly string[] = [];
  #stamp = "";
  #checkedAt = -Infinity;
  #check: Promise<void> | undefined;

  /** `now` returns milliseconds on a clock that never goes back. */
  constructor(path: string, now: () => number) {
    this.#path = path;
    this.#now = now;
  }

  /** Addresses, at most a second old; none where the file is missing or cannot be read. The same array until they change. */
  async current(): Promise<readonly string[]> {
    if (this.#check === undefined && this.#now() - this.#checkedAt >= checkEveryMs) {
      this.#check = this.#read().finally(() => {
        this.#checkedAt = this.#now();
        this.#check = undefined;
      });
    }
    await this.#check;
    return this.#servers;
  }

  async #read(): Promise<void> {
    try {
      const { ino, size, mtimeNs, ctimeNs } = await stat(this.#path, { bigint: true });
      const stamp = [ino, size, mtimeNs, ctimeNs].join(" ");
      if (stamp === this.#stamp) return;
      this.#use(size > maxFileSize ? [] : parseServers(await readFile(this.#path, "utf8")), stamp);
    } catch {
      this.#use([], ""); // whatever the reason, there are no resolvers to be had; the next check tries again
    }
  }

  #use(servers: readonly string[], stamp: string): void {
    this.#stamp = stamp;
    if (servers.join(" ") !== this.#servers.join(" ")) this.#servers = servers;
  }
}

/**
 * Reads the lines `nameserver ADDRESS`. A link-local address with its scope is left out: Node passes it on without the scope, so
 * that nothing could be sent there, and each question would wait for it.
 */
export function parseServers(text: string): string[] {
  const servers: string[] = [];
  for (const line of text.split("\n")) {
    const address = /^nameserver[ \t]+([^\s#;]+)/.exec(line)?.[1] ?? "";
    if (isIP(address) !== 0 && !address.includes("%") && servers.length < maxServers) servers.push(address);
  }
  return servers;
}

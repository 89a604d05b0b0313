import { readFile, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { writeAtomically } from "../../store/atomic-file.js";

/** Settings of the network namespace that squashd is in. Source: Documentation/networking/ip-sysctl.rst */
const settings = "/proc/sys/net/ipv4/conf";

/**
 * Lets answers to sandboxes in: a packet is forwarded when the interface that it came by allows that. On a machine that forwards nothing, only
 * the interfaces that are there get that right, and the firewall keeps closed what was closed before. Which they are is kept in a file, for the
 * next squashd.
 */
export class Forwarding {
  readonly #path: string;

  constructor(runDir: string) {
    this.#path = join(runDir, "forwarding");
  }

  /** Whether there are interfaces of ours although the machine forwards in general by now; they are somebody else's business then. */
  async handOver(): Promise<boolean> {
    if ((await this.#kept()).length === 0 || !(await this.#isGeneral())) return false;
    await this.#keep([]);
    return true;
  }

  /** Whether the machine forwards by somebody else's decision. */
  async #isGeneral(): Promise<boolean> {
    return (await readFile(join(settings, "all/forwarding"), "utf8")).trim() === "1";
  }

  /** Returns the interfaces that this or an earlier squashd opened. */
  async open(): Promise<string[]> {
    if (await this.#isGeneral()) {
      await this.#keep([]);
      return [];
    }
    const opened = new Set(await this.#kept());
    for (const name of await readdir(settings)) {
      if (["all", "default", "lo"].includes(name) || /^sq\d+h$/.test(name)) continue;
      const path = join(settings, name, "forwarding");
      if ((await readFile(path, "utf8")).trim() === "1") continue;
      await writeFile(path, "1");
      opened.add(name);
    }
    await this.#keep([...opened]);
    return [...opened];
  }

  /** The undo. */
  async close(): Promise<void> {
    for (const name of await this.#kept())
      await writeFile(join(settings, name, "forwarding"), "0").catch(() => undefined); // the interface is gone
    await this.#keep([]);
  }

  async #kept(): Promise<string[]> {
    try {
      return (await readFile(this.#path, "utf8")).split("\n").filter((name) => name !== "");
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
      return [];
    }
  }

  #keep(names: readonly string[]): Promise<void> {
    return writeAtomically(this.#path, names.join("\n"), { durable: false });
  }
}

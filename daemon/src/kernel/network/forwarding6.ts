import { readFile, readdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { writeAtomically } from "../../store/atomic-file.js";

/** Settings of the network namespace that squashd is in. Source: Documentation/networking/ip-sysctl.rst */
const settings = "/proc/sys/net/ipv6/conf";

/**
 * Has the machine forward IPv6, which it does or does not as a whole. To switch it on makes a router of every interface, and a router drops
 * the default route that it has learned from another: so every interface is made a host again, and meanwhile told to keep such routes. What
 * is forwarded by that is only what the firewall lets through. A file is there for as long as it is squashd's doing.
 */
export class Forwarding6 {
  readonly #path: string;

  constructor(runDir: string) {
    this.#path = join(runDir, "forwarding6");
  }

  /** Whether it is squashd's doing, by this or an earlier one, that the machine forwards. */
  async open(): Promise<boolean> {
    const before = await this.#kept();
    if (await isOn("all", "forwarding")) return before !== null;
    const usual = before ?? ((await isOn("default", "forwarding")) ? "1" : "0");
    await writeAtomically(this.#path, usual, { durable: false });
    await this.#switch("1", usual);
    return true;
  }

  /** Whether somebody has switched it on by now who means the whole machine: that is seen by what becomes of new interfaces. */
  async handOver(): Promise<boolean> {
    if ((await this.#kept()) !== "0" || !(await isOn("default", "forwarding"))) return false;
    await rm(this.#path, { force: true });
    return true;
  }

  /** The undo; idempotent. */
  async close(): Promise<void> {
    const before = await this.#kept();
    if (before === null) return;
    await this.#switch("0", before);
    await rm(this.#path, { force: true });
  }

  /** Changes the machine's own setting, and no interface's. */
  async #switch(to: "0" | "1", usual: string): Promise<void> {
    const names = (await readdir(settings)).filter((name) => !["all", "default"].includes(name));
    const interfaces = await Promise.all(names.map(async (name) => ({ name, ...(await readInterface(name)) })));
    const learning = interfaces.filter(({ forwarding, acceptRa }) => forwarding === "0" && acceptRa === "1");
    try {
      for (const { name } of learning) await write(name, "accept_ra", "2");
      await writeFile(join(settings, "all/forwarding"), to);
    } finally {
      for (const { name, forwarding } of interfaces) await write(name, "forwarding", forwarding);
      for (const { name } of learning) await write(name, "accept_ra", "1");
      await write("default", "forwarding", usual);
    }
  }

  async #kept(): Promise<string | null> {
    try {
      return await readFile(this.#path, "utf8");
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
      return null;
    }
  }
}

async function isOn(name: string, setting: string): Promise<boolean> {
  return (await readFile(join(settings, name, setting), "utf8")).trim() === "1";
}

/** Nulls for an interface that is gone. */
async function readInterface(name: string): Promise<{ forwarding: string | null; acceptRa: string | null }> {
  const read = (setting: string): Promise<string | null> =>
    readFile(join(settings, name, setting), "utf8").then(
      (text) => text.trim(),
      () => null,
    );
  return { forwarding: await read("forwarding"), acceptRa: await read("accept_ra") };
}

async function write(name: string, setting: string, value: string | null): Promise<void> {
  if (value !== null) await writeFile(join(settings, name, setting), value).catch(() => undefined); // the interface is gone
}

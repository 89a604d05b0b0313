import { execFileSync, spawnSync } from "node:child_process";
import { mkdirSync, readdirSync, rmSync, symlinkSync, existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import type { Sandbox } from "@squash/sdk";
import { commandLines } from "../../support/commands.js";
import { hostState, settledState } from "../../support/leaks.js";
import { lacks } from "../../support/needs.js";
import { useOnline } from "../../support/online.js";
import { trustByHand } from "../../support/modules.js";
import { netnsOf } from "../../support/reach.js";
import { TestSquashd } from "../../support/squashd.js";

const { squashd } = useOnline();
const gateway = "10.200.0.1";

afterEach(async () => {
  await Promise.all((await squashd.client.list()).map(({ id }) => squashd.client.sandbox(id).destroy()));
});

async function addressOf(sandbox: Sandbox): Promise<string> {
  const { address } = await sandbox.info();
  if (address === null) throw new Error("the sandbox has no address");
  return address;
}

/** The number in the name of the link that leads to an address. */
function linkTo(address: string): number {
  const route = squashd.netns.run("ip", "route", "show", `${address}/32`);
  return Number(/ dev sq(\d+)h /.exec(route)?.[1]);
}

/** A layer whose resolv.conf leads nowhere until a system has booted, as distributions have it. */
function makeLinkedLayer(): void {
  const root = join(squashd.home, "linked");
  mkdirSync(join(root, "etc"), { recursive: true });
  symlinkSync("../run/systemd/resolve/stub-resolv.conf", join(root, "etc/resolv.conf"));
  const module = join(squashd.dataDir, "modules/210-linked");
  const quiet = { stdio: "ignore" } as const;
  execFileSync("mksquashfs", [root, `${module}.squashfs`, "-noappend", "-quiet", "-all-root"], quiet);
  execFileSync("mkfs.erofs", ["-zlz4", "--all-root", `${module}.erofs`, root], quiet);
  rmSync(root, { recursive: true });
  trustByHand(dirname(module), "210-linked");
}

describe.skipIf(lacks("root"))("the link of a sandbox", () => {
  it("has its name and its address from the number of the cell, and is in the group that the firewall knows", async () => {
    const sandbox = await squashd.client.create({ id: "linked" });
    const address = await addressOf(sandbox);
    const index = linkTo(address);
    expect(address).toBe(`10.200.0.${2 + index}`);
    const link = squashd.netns.run("ip", "-d", "link", "show", `sq${index}h`);
    expect(link).toMatch(/NOARP/);
    expect(link).toMatch(/group 21329/);
    expect(squashd.netns.run("ip", "address", "show", `sq${index}h`)).not.toMatch(/inet/);
    const neighbours = squashd.netns.run("ip", "neighbour", "show", "dev", `sq${index}h`);
    expect(neighbours.trim()).toMatch(new RegExp(`^${address.replaceAll(".", "\\.")} lladdr 02:53:02:.* PERMANENT`));
  });

  it("is eth0 inside, with one /32, one default route and no IPv6", async () => {
    const sandbox = await squashd.client.create({ id: "inside" });
    const address = await addressOf(sandbox);
    const addresses = netnsOf(sandbox).run("ip", "-o", "address", "show", "eth0");
    expect(addresses.trim().split("\n")).toHaveLength(1);
    expect(addresses).toContain(`inet ${address}/32`);
    expect(netnsOf(sandbox).run("ip", "route").trim()).toBe(`default via ${gateway} dev eth0 proto static onlink`);
    expect(netnsOf(sandbox).run("ip", "-6", "route").trim()).toBe("");
    // the same as the sandbox sees it
    const { stdout } = await sandbox.exec("ip -o addr show eth0; cat /proc/net/if_inet6 | grep -c eth0");
    expect(stdout).toContain(`inet ${address}/32`);
    expect(stdout.trim().split("\n").at(-1)).toBe("0");
  });

  it("is listed by ip netns under the id, and so is that of every one", async () => {
    const ids = ["first", "second"];
    for (const id of ids) await squashd.client.create({ id });
    const listed = execFileSync("ip", ["netns"], { encoding: "utf8" });
    for (const id of ids) expect(listed).toMatch(new RegExp(`^${squashd.mark}-${id}\\b`, "m"));
    for (const id of ids) {
      const { gateway: said } = await squashd.client.sandbox(id).network();
      expect(said).toBe(gateway);
    }
  });

  it("comes with a resolv.conf, also in place of a symlink of a layer", async () => {
    makeLinkedLayer();
    const layers = { plain: ["000-base-test"], linked: ["000-base-test", "210-linked"] };
    for (const [id, each] of Object.entries(layers)) {
      const sandbox = await squashd.client.create({ id, layers: each });
      const { stdout } = await sandbox.exec("cat /etc/resolv.conf; test -L /etc/resolv.conf && echo link");
      expect(stdout).toBe(`nameserver ${gateway}\n`);
    }
  });

  it("is one for each of 100 sandboxes at once, which all have addresses of their own", async () => {
    const sandboxes = await Promise.all(
      Array.from({ length: 100 }, (_, i) => squashd.client.create({ id: `many-${i}` })),
    );
    const addresses = await Promise.all(sandboxes.map((each) => addressOf(each)));
    expect(new Set(addresses).size).toBe(100);
    const seen = await Promise.all(
      sandboxes.map(async (each) => /inet (\S+)\/32/.exec((await each.exec("ip -o addr show eth0")).stdout)?.[1]),
    );
    expect(seen).toEqual(addresses);
    for (const address of addresses) expect(address).toBe(`10.200.0.${2 + linkTo(address)}`);
    expect(squashd.netns.links().length).toBeGreaterThanOrEqual(100);
  });
});

describe.skipIf(lacks("root"))("SQUASH_SUBNET", () => {
  it("none gives loopback only, refuses policies, and says so", async () => {
    await using own = new TestSquashd({ env: { SQUASH_SUBNET: "none" } });
    await own.start();
    const sandbox = await own.client.create({ id: "offline" });
    expect((await sandbox.exec("ip -o link | cut -d: -f2; ip route")).stdout).toBe(" lo\n");
    expect((await sandbox.info()).address).toBeNull();
    await expect(sandbox.network()).rejects.toMatchObject({ code: "network_off" });
    await expect(sandbox.setNetwork({ allow_net: null })).rejects.toMatchObject({ code: "network_off" });
    for (const policy of [{ allow_net: ["example.org"] }, { deny_net: ["8.8.8.8"] }]) {
      await expect(own.client.create({ id: "wish", ...policy })).rejects.toMatchObject({ code: /network_off|invalid/ });
    }
    expect((await own.client.list()).map(({ id }) => id)).toEqual(["offline"]);
    expect(own.netns.run("nft", "list", "ruleset")).toBe("");
  });

  it("may be another network, whose first address is the gateway then", async () => {
    await using own = new TestSquashd({ env: { SQUASH_SUBNET: "10.64.0.0/17" } });
    await own.start();
    const sandbox = await own.client.create({ id: "elsewhere" });
    expect(await addressOf(sandbox)).toMatch(/^10\.64\.0\.\d+$/);
    expect((await sandbox.exec("cat /etc/resolv.conf")).stdout).toBe("nameserver 10.64.0.1\n");
    expect(own.netns.run("ip", "-o", "address", "show", "lo")).toContain("10.64.0.1/32");
  });
});

describe.skipIf(lacks("root"))("a creation whose link cannot be made", () => {
  /** An altname takes the name for good: what has it is loopback, which nobody can remove. */
  const names = Array.from({ length: 4 }, (_, index) => `sq${index}h`);

  it("fails with the reason, leaves nothing, and works once the name is free", async () => {
    await using own = new TestSquashd({ env: { SQUASH_POOL_SIZE: "0" } });
    await own.start();
    const marks = [own.mark];
    const [state, rules] = [hostState(marks), own.netns.run("nft", "list", "table", "inet", "squash")];
    for (const name of names) own.netns.run("ip", "link", "property", "add", "dev", "lo", "altname", name);
    await expect(own.client.create({ id: "unlinked" })).rejects.toMatchObject({ message: /link sq\d+h/ });
    expect(await own.client.list()).toEqual([]);
    expect(readdirSync(join(own.dataDir, "sandboxes"))).toEqual([]);
    expect(await settledState(state, marks)).toEqual(state);
    expect(own.netns.run("nft", "list", "table", "inet", "squash")).toBe(rules);
    for (const name of names) own.netns.run("ip", "link", "property", "del", "dev", "lo", "altname", name);
    const sandbox = await own.client.create({ id: "unlinked" });
    expect(await addressOf(sandbox)).toMatch(/^10\.200\.0\./);
  });

  it("fails as well while the firewall's sets are gone, or is as closed as ever", async () => {
    await using own = new TestSquashd({ env: { SQUASH_POOL_SIZE: "0" } });
    await own.start();
    const state = hostState([own.mark]);
    const table = (): string => own.netns.run("nft", "list", "table", "inet", "squash");
    const rules = table();
    for (let round = 0; round < 10; round++) {
      const creating = own.client.create({ id: `unruled-${round}`, allow_net: ["none"] });
      own.netns.run("nft", "flush", "ruleset");
      const made = await creating.then(
        () => true,
        (error: unknown) => String(error).includes("firewall") || String(error).includes("link") || String(error),
      );
      expect(made).toBe(true);
      await expect.poll(table).toContain("chain decide");
      for (const { id } of await own.client.list()) await own.client.sandbox(id).destroy();
    }
    expect(await settledState(state, [own.mark])).toEqual(state);
    await expect.poll(table).toBe(rules);
  });
});

describe.skipIf(lacks("root"))("a second squashd", () => {
  it("in the same network namespace does not start, says why, and does no harm to the first", async () => {
    const sandbox = await squashd.client.create({ id: "undisturbed" });
    const rules = squashd.netns.run("nft", "list", "table", "inet", "squash");
    const home = join(squashd.home, "second");
    mkdirSync(join(home, "data/modules"), { recursive: true });
    const env = {
      PATH: process.env["PATH"] ?? "/usr/sbin:/usr/bin:/sbin:/bin",
      SQUASH_DATA_DIR: join(home, "data"),
      SQUASH_RUN_DIR: join(home, "run"),
      SQUASH_LISTEN: `unix:${join(home, "api.sock")}`,
      SQUASH_CGROUP_ROOT: `${squashd.mark}-second`,
    };
    const [program, args] = squashd.netns.enter(process.execPath, [commandLines.squashd]);
    const { status, stderr } = spawnSync(program, args, { env, encoding: "utf8", timeout: 30_000 });
    expect(status).toBe(1);
    expect(stderr).toMatch(/another squashd runs here; give one of them SQUASH_SUBNET=none/);
    expect(existsSync(join(home, "api.sock"))).toBe(false);
    expect(squashd.netns.run("nft", "list", "table", "inet", "squash")).toBe(rules);
    expect(squashd.netns.run("ip", "-o", "address", "show", "lo")).toContain(`${gateway}/32`);
    expect((await sandbox.exec("echo yes")).stdout).toBe("yes\n");
  });
});

import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { TestInternet, places } from "../../support/internet.js";
import { lacks } from "../../support/needs.js";
import { openLinks } from "../../support/open-links.js";
import { TestNetns } from "../../support/netns.js";
import { netnsOf, Reach } from "../../support/reach.js";
import { TestSquashd } from "../../support/squashd.js";

const { web, host } = places;
const lanAddress = "172.20.0.2";
const lanGateway = "172.20.0.1";
const handOverMs = 25_000;

/** A squashd on a machine with a second network behind it, whose hosts have a way to the internet through the machine. */
class Router implements AsyncDisposable {
  readonly squashd = new TestSquashd();
  readonly internet = new TestInternet(this.squashd);
  readonly lan = new TestNetns(join(this.squashd.home, "lan"));

  async start(forwarding: "0" | "1"): Promise<void> {
    await this.internet.start();
    const { netns } = this.squashd;
    this.lan.make();
    netns.run("ip", "link", "add", "lan0", "type", "veth", "peer", "name", "eth0", "netns", this.lan.path);
    netns.run("ip", "address", "add", `${lanGateway}/24`, "dev", "lan0");
    netns.run("ip", "link", "set", "lan0", "up");
    this.lan.run("ip", "address", "add", `${lanAddress}/24`, "dev", "eth0");
    this.lan.run("ip", "link", "set", "eth0", "up");
    this.lan.run("ip", "route", "add", "default", "via", lanGateway);
    this.internet.run("ip", "route", "add", "172.20.0.0/24", "via", host);
    this.setForwarding(forwarding);
    await this.squashd.start(this.internet.env);
  }

  setForwarding(value: "0" | "1"): void {
    this.squashd.netns.run("sh", "-c", `echo ${value} >/proc/sys/net/ipv4/conf/all/forwarding`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.lan[Symbol.dispose]();
    await this.internet[Symbol.asyncDispose]();
    await this.squashd[Symbol.asyncDispose]();
  }
}

describe.skipIf(lacks("root"))("a machine that forwards between its networks", () => {
  const router = new Router();
  beforeAll(() => router.start("1"));
  afterAll(() => router[Symbol.asyncDispose]());

  it("goes on doing so, and is reached and reaches others as without squashd", async () => {
    await using lan = await Reach.from(router.lan);
    await using outside = await Reach.from(router.internet.netns);
    await using machine = await Reach.from(router.squashd.netns);
    await machine.listen([host, 7_300]);
    await lan.listen([lanAddress, 7_301]);
    expect(await lan.opens([web, 7_000])).toBe(true);
    expect(await lan.opens([web, 7_000], "udp")).toBe(true);
    expect(await outside.opens([lanAddress, 7_301])).toBe(true);
    expect(await outside.opens([host, 7_300])).toBe(true);
    expect(await lan.opens([host, 7_300])).toBe(true);
    expect(await machine.opens([web, 7_000])).toBe(true);
  });

  it("does not let anybody into a sandbox, nor to the gateway that only sandboxes have", async () => {
    await using lan = await Reach.from(router.lan);
    const sandbox = await router.squashd.client.create({ id: "inner" });
    const { address } = await sandbox.info();
    await using inside = await Reach.from(netnsOf(sandbox));
    await inside.listen([address ?? "", 7_302]);
    expect(await inside.opens([web, 7_000])).toBe(true);
    expect(await lan.opens([address ?? "", 7_302])).toBe(false);
    expect(await lan.opens(["10.200.0.1", 53])).toBe(false);
    // what keeps them out are the tables, and nothing that happens to be so
    openLinks(router.squashd.netns);
    expect(await lan.opens([address ?? "", 7_302])).toBe(true);
  });
});

describe.skipIf(lacks("root"))("a machine that forwards nothing", () => {
  const router = new Router();
  beforeAll(() => router.start("0"));
  afterAll(() => router[Symbol.asyncDispose]());

  it("forwards for sandboxes only, until somebody else has it forward in general", async () => {
    await using lan = await Reach.from(router.lan);
    const sandbox = await router.squashd.client.create({ id: "only" });
    await using inside = await Reach.from(netnsOf(sandbox));
    expect(await inside.opens([web, 7_000])).toBe(true);
    expect(await lan.opens([web, 7_000])).toBe(false);
    router.setForwarding("1");
    await expect.poll(() => lan.opens([web, 7_000]), { timeout: handOverMs }).toBe(true);
    expect(await inside.opens([web, 7_000])).toBe(true);
  });
});

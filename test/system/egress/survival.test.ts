import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import type { Sandbox } from "@squash/sdk";
import { places } from "../../support/internet.js";
import { killInit } from "../../support/kill-init.js";
import { lacks } from "../../support/needs.js";
import type { TestNetns } from "../../support/netns.js";
import { useOnline } from "../../support/online.js";
import { netnsOf, Reach, type Place } from "../../support/reach.js";
import { TestSquashd } from "../../support/squashd.js";

// without a pool, so that the host's state depends on the sandboxes that there are
const { squashd, outside } = useOnline({ env: { SQUASH_POOL_SIZE: "0" } });
const { web, otherWeb, lan, metadata, host, hostPrivate, foreignResolver } = places;
const direct: Place = [web, 7_000];
/** as sandboxes know it */
const resolver: Place = ["10.200.0.1", 53];
const hostServer = 6_100;
const neighbourPort = 9_000;
const allow = [`${web}:7000`, "www.other.net"];

let sandbox: Sandbox;
let neighbour: Sandbox;
let reach: Reach;
let onHost: Reach;
let forbidden: Place[];

beforeAll(async () => {
  onHost = await Reach.from(squashd.netns);
  for (const address of [host, hostPrivate]) await onHost.listen([address, hostServer]);
  // so that answers find their way back even when nothing masquerades
  outside.run("ip", "route", "add", "10.200.0.0/14", "via", host);
});
beforeEach(async () => {
  sandbox = await squashd.client.create({ id: "survivor", allow_net: allow });
  neighbour = await squashd.client.create({ id: "neighbour" });
  reach = await Reach.from(netnsOf(sandbox));
  forbidden = [
    [lan, 7_000],
    [metadata, 80],
    [otherWeb, 7_000],
    [web, 5_432],
    [host, hostServer],
    [hostPrivate, hostServer],
    [(await neighbour.info()).address ?? "", neighbourPort],
  ];
});
afterEach(async () => {
  await reach[Symbol.asyncDispose]();
  await squashd.destroyAll();
});
afterAll(async () => {
  await onHost[Symbol.asyncDispose]();
});

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** A transfer is under way: something has come since. */
async function expectGoingOn(handle: number): Promise<void> {
  const { received } = await reach.state(handle);
  await expect.poll(async () => (await reach.state(handle)).received).toBeGreaterThan(received + 5);
  expect((await reach.state(handle)).endedAt).toBeNull();
}

/** Which of them a connection opens to, tried at once: what a firewall drops is silent for as long as one waits. */
async function whichOpen(from: Reach, places: readonly Place[]): Promise<string[]> {
  const found = await Promise.all(places.map(async (place) => ((await from.opens(place)) ? [place.join(":")] : [])));
  return found.flat();
}

async function looksUp(name: string): Promise<boolean> {
  return (await sandbox.exec(`nslookup ${name}`)).exit_code === 0;
}

/** What is in a namespace of the network of sandboxes, without what changes by itself. */
function networkState(netns: TestNetns): Record<string, string[]> {
  // a link-local address of the internet's link takes its time
  const lines = (text: string): string[] =>
    text
      .split("\n")
      .map((line) => line.trim())
      .filter((line) => line !== "" && !line.includes("fe80::"))
      .toSorted();
  return {
    rules: netns
      .run("nft", "list", "ruleset")
      .replaceAll(/counter packets \d+ bytes \d+/g, "counter")
      // what packets fill and the kernel empties: counts of living connections, and shares of the log, for a minute
      .replaceAll(/(set (?:tracked|noisy|queries) \{[^=}]*)elements = \{[^}]*\}\s*/g, "$1")
      .split("\n")
      .map((line) => line.trim()),
    links: lines(netns.run("ip", "-o", "link")).map((line) => line.replaceAll(/^\d+: | state .*/g, "")),
    routes: lines(netns.run("ip", "route", "show", "table", "all")),
    neighbours: lines(netns.run("ip", "neighbour")).filter((line) => line.includes(" dev sq")),
    addresses: lines(netns.run("ip", "-o", "address")).map((line) => line.replaceAll(/^\d+: | valid_lft.*/g, "")),
  };
}

describe.skipIf(lacks("root"))("kill -9 of squashd", () => {
  it("stops no transfer by address, opens nothing until the next one is there, and then names work again", async () => {
    const handle = await reach.hold("echo", direct);
    const storm = await reach.storm(forbidden, { atOnce: 8 });
    await squashd.end("SIGKILL");
    await expectGoingOn(handle);
    expect(await reach.opens(direct)).toBe(true);
    expect(await reach.opens(resolver)).toBe(false);
    await squashd.start();
    await expectGoingOn(handle);
    expect(await reach.opens(resolver)).toBe(true);
    expect(await looksUp("www.other.net")).toBe(true);
    expect(await reach.opens([otherWeb, 7_000])).toBe(true);
    expect(await looksUp("www.example.org")).toBe(false);
    const { attempts, opened } = await reach.calm(storm);
    expect(attempts).toBeGreaterThan(300);
    // the name that was looked up at the end has this address
    expect(Object.keys(opened).filter((place) => place !== `${otherWeb}:7000`)).toEqual([]);
  });

  it("again and again opens nothing either, not even for a moment", async () => {
    const storm = await reach.storm(forbidden, { atOnce: 8, timeoutMs: 50 });
    for (let i = 0; i < 4; i++) {
      await squashd.end("SIGKILL");
      await squashd.start();
    }
    const { attempts, opened } = await reach.calm(storm);
    expect(attempts).toBeGreaterThan(300);
    expect(opened).toEqual({});
  });
});

describe.skipIf(lacks("root"))("kill -9 of sq-host", () => {
  it("stops no transfer, and changes, cuts and logs go on afterwards", async () => {
    const handle = await reach.hold("echo", direct);
    const storm = await reach.storm(forbidden, { atOnce: 4 });
    const before = squashd.hostPid;
    process.kill(before, "SIGKILL");
    await expectGoingOn(handle);
    await expect.poll(() => sandbox.network().then(({ connections_open: open }) => open)).toBeGreaterThan(0);
    expect(squashd.hostPid).not.toBe(before);
    await sandbox.setNetwork({ allow_net: [`${otherWeb}:7000`] });
    await pause(200);
    expect((await reach.state(handle)).endedAt).not.toBeNull();
    const { opened } = await reach.calm(storm);
    expect(Object.keys(opened).filter((place) => place !== `${otherWeb}:7000`)).toEqual([]);
    expect(await reach.opens([otherWeb, 7_000])).toBe(true);
    await pause(1_500); // the flood's share of the log is used up
    expect(await reach.opens([foreignResolver, 853])).toBe(false);
    await expect
      .poll(async () =>
        (await sandbox.networkLog()).filter(({ address, port }) => address === foreignResolver && port === 853),
      )
      .not.toEqual([]);
  });
});

describe.skipIf(lacks("root"))("a sandbox whose init dies", () => {
  it("is built again with the same address and the same policy", async () => {
    const before = await sandbox.info();
    killInit(before);
    await expect.poll(() => sandbox.info()).toMatchObject({ state: "ready", restarts: 1 });
    const after = await sandbox.info();
    expect({ address: after.address, allow: after.allow_net }).toEqual({ address: before.address, allow });
    await using again = await Reach.from(netnsOf(sandbox));
    expect(await again.opens(direct)).toBe(true);
    expect(await whichOpen(again, forbidden)).toEqual([]);
    expect((await sandbox.exec("cat /etc/resolv.conf")).stdout).toBe("nameserver 10.200.0.1\n");
    expect(await looksUp("www.other.net")).toBe(true);
  });
});

describe.skipIf(lacks("root"))("the destruction of a sandbox", () => {
  it("leaves no link, route, neighbour, element of a set or tracked connection", async () => {
    const before = networkState(squashd.netns);
    const limits = { down_kbit: 9_000, up_kbit: 9_000, connections_per_s: 500 };
    const other = await squashd.client.create({
      id: "traceless",
      allow_net: [web, "10.1.0.0/16:22", "www.other.net", "*.example.org:7000/udp"],
      deny_net: [`${otherWeb}:5432`],
      net_limits: limits,
    });
    const { address } = await other.info();
    await other.exec("nslookup www.other.net");
    const inside = await Reach.from(netnsOf(other));
    expect(await inside.opens([web, 5_432])).toBe(true);
    expect(await inside.opens([otherWeb, 7_000])).toBe(true);
    expect(await inside.opens([lan, 7_000])).toBe(false);
    await inside.hold("echo", direct);
    expect(networkState(squashd.netns)).not.toEqual(before);
    const tracked = (): string => squashd.netns.run("conntrack", "-L", "-s", address ?? "");
    expect(tracked()).not.toBe("");
    await inside[Symbol.asyncDispose](); // a process in a namespace keeps it
    await other.destroy();
    await expect.poll(() => networkState(squashd.netns).links).toEqual(before["links"]);
    expect(tracked()).toBe("");
    expect(networkState(squashd.netns)).toEqual(before);
  });
});

describe.skipIf(lacks("root"))("the end of squashd", () => {
  it("without sandboxes leaves neither table nor gateway, and forwarding as it was", async () => {
    await using own = new TestSquashd();
    own.netns.make();
    own.netns.run("ip", "link", "add", "uplink0", "type", "veth", "peer", "name", "uplink1");
    own.netns.run("sysctl", "-qw", "net.ipv4.conf.uplink1.forwarding=1");
    const settings = (): string =>
      own.netns.run("sysctl", "-ar", "^net\\.(ipv4|ipv6)\\.conf\\.(all|default|lo|uplink).*");
    const [state, before] = [networkState(own.netns), settings()];
    await own.start();
    await own.client.create({ id: "short" });
    expect(own.netns.run("sysctl", "-n", "net.ipv4.conf.uplink0.forwarding").trim()).toBe("1");
    expect(own.netns.run("sysctl", "-n", "net.ipv4.conf.all.forwarding").trim()).toBe("0");
    await own.client.sandbox("short").destroy();
    await own.end();
    await expect.poll(() => networkState(own.netns)).toEqual(state);
    expect(settings()).toBe(before);
  });

  it("with sandboxes leaves them as they are, with their policies in force", async () => {
    const handle = await reach.hold("echo", direct);
    await squashd.end("SIGTERM");
    await expectGoingOn(handle);
    expect(await whichOpen(reach, forbidden)).toEqual([]);
    await squashd.start();
    await expectGoingOn(handle);
  });
});

describe.skipIf(lacks("root"))("a table of the firewall that somebody else removes", () => {
  it.each([
    ["one table", ["delete", "table", "inet", "squash"]],
    ["all rules of the host", ["flush", "ruleset"]],
  ])("opens nothing by way of %s, and is loaded again with all policies", async (_, words) => {
    for (let round = 0; round < 5; round++) {
      squashd.netns.run("nft", ...words);
      expect(await whichOpen(reach, forbidden)).toEqual([]);
      await expect.poll(() => reach.opens(direct)).toBe(true);
      expect(await whichOpen(reach, forbidden)).toEqual([]);
    }
    expect(await looksUp("www.other.net")).toBe(true);
  });

  it.each([
    ["one table", ["delete", "table", "inet", "squash"]],
    ["all rules of the host", ["flush", "ruleset"]],
    ["all rules of the table", ["flush", "table", "inet", "squash"]],
  ])("opens nothing by way of %s either before sq-host has noticed", async (_, words) => {
    const served: Place = [(await sandbox.info()).address ?? "", neighbourPort];
    await reach.listen(served);
    const stopped = squashd.hostPid;
    process.kill(stopped, "SIGSTOP");
    try {
      squashd.netns.run("nft", ...words);
      const all = await Promise.all([whichOpen(reach, [...forbidden, direct]), whichOpen(onHost, [served])]);
      expect(all.flat()).toEqual([]);
      expect(() => squashd.netns.run("nft", "delete", "table", "inet", "squash_guard")).toThrow("not permitted");
    } finally {
      process.kill(stopped, "SIGCONT");
    }
    // nothing tells of rules that go while their table stays
    squashd.netns.run("nft", "flush", "ruleset");
    await expect.poll(() => reach.opens(direct)).toBe(true);
    expect(await whichOpen(reach, forbidden)).toEqual([]);
  });

  it("would open what is not public, and the sandbox to its neighbours, without a second table", async () => {
    const served: Place = [(await sandbox.info()).address ?? "", neighbourPort];
    await reach.listen(served);
    await squashd.end("SIGKILL");
    squashd.netns.run("nft", "flush", "ruleset");
    expect(await reach.opens([lan, 7_000])).toBe(true);
    expect(await onHost.opens(served)).toBe(true);
    await squashd.start();
    expect(await whichOpen(reach, forbidden)).toEqual([]);
    expect(await reach.opens(direct)).toBe(true);
  });
});

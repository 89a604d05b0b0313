import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { NetworkRequest, Sandbox } from "@squash/sdk";
import { places } from "../../support/internet.js";
import { lacks } from "../../support/needs.js";
import { useOnline } from "../../support/online.js";
import { netnsOf, Reach, type Place } from "../../support/reach.js";
import type { HeldState } from "../../support/reach-host.js";

const { squashd, internet } = useOnline();
const { web, otherWeb, lan, metadata } = places;
const direct: Place = [web, 7_000];
const otherPort: Place = [web, 5_432];
/** within this time after the answer to a change nothing more may get through */
const cutMs = 100;
const watchMs = 300;

let sandbox: Sandbox;
let reach: Reach;

beforeAll(async () => {
  sandbox = await squashd.client.create({ id: "changed" });
  reach = await Reach.from(netnsOf(sandbox));
});
afterAll(async () => {
  await reach[Symbol.asyncDispose]();
});

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Changes the policy, and tells of a transfer a while later. */
async function change(handle: number, network: NetworkRequest): Promise<{ answeredAt: number; state: HeldState }> {
  expect((await reach.state(handle)).endedAt).toBeNull();
  await sandbox.setNetwork(network);
  const answeredAt = Date.now();
  await pause(watchMs);
  return { answeredAt, state: await reach.state(handle) };
}

async function expectCut(handle: number, network: NetworkRequest): Promise<void> {
  const { answeredAt, state } = await change(handle, network);
  expect(state.endedAt).not.toBeNull();
  expect((state.endedAt ?? 0) - answeredAt).toBeLessThan(cutMs);
  expect(state.lastAt - answeredAt).toBeLessThan(cutMs);
  await pause(watchMs);
  expect(await reach.state(handle)).toEqual(state);
}

async function expectGoingOn(handle: number, network: NetworkRequest): Promise<void> {
  const { answeredAt, state } = await change(handle, network);
  expect(state.endedAt).toBeNull();
  expect(state.lastAt - answeredAt).toBeGreaterThan(watchMs / 2);
}

describe.skipIf(lacks("root"))("a change of the policy cuts what it does not allow any more:", () => {
  it.each([
    ["nothing at all is allowed", { allow_net: ["none"] }],
    ["another address is", { allow_net: [otherWeb] }],
    ["another port is", { allow_net: [`${web}:5432`] }],
    ["the other protocol is", { allow_net: [`${web}:7000/udp`] }],
    ["a name is, which has the address but was not asked for", { allow_net: ["www.example.org"] }],
    ["the address is denied", { allow_net: null, deny_net: [web] }],
    ["the port is denied", { allow_net: null, deny_net: [`${web}:7000`] }],
  ])("a transfer by address, when %s", async (_, network) => {
    await sandbox.setNetwork({ allow_net: null });
    await expectCut(await reach.hold("echo", direct), network);
  });

  it("a transfer to the address of a name", async () => {
    await sandbox.setNetwork({ allow_net: ["www.example.org", "www.other.net"] });
    expect(await reach.opens(direct)).toBe(false);
    await sandbox.exec("nslookup www.example.org");
    await expectCut(await reach.hold("echo", direct), { allow_net: ["www.other.net"] });
  });

  it.each([
    ["http", 80],
    ["tls", 443],
  ] as const)("one through the proxy, by %s", async (kind, port) => {
    for (const network of [
      { allow_net: ["other.example.org"] },
      { allow_net: null, deny_net: ["www.example.org"] },
      { allow_net: ["none"] },
    ]) {
      await sandbox.setNetwork({ allow_net: ["*.example.org"] });
      await expectCut(await reach.hold(kind, [web, port], "www.example.org"), network);
    }
  });

  it("one to port 80 that was direct, when from now on the proxy decides", async () => {
    await sandbox.setNetwork({ allow_net: null });
    const handle = await reach.hold("http", [web, 80], "www.example.org");
    const { answeredAt, state } = await change(handle, { allow_net: ["www.example.org"] });
    // whoever only listens is not told, but hears nothing more
    expect(state.lastAt - answeredAt).toBeLessThan(cutMs);
    await pause(watchMs);
    expect((await reach.state(handle)).received).toBe(state.received);
    await reach.release();
  });
});

describe.skipIf(lacks("root"))("a change of the policy leaves what it still allows:", () => {
  it.each([
    ["everything", null, null],
    ["a wider network", [web], ["93.184.0.0/16"]],
    ["a narrower entry", ["93.184.0.0/16"], [`${web}:7000`]],
    ["more", [web], [web, otherWeb, "www.other.net"]],
  ])("a transfer by address, to %s", async (_, before, after) => {
    await sandbox.setNetwork({ allow_net: before });
    await expectGoingOn(await reach.hold("echo", direct), { allow_net: after });
    await reach.release();
  });

  it("one through the proxy", async () => {
    await sandbox.setNetwork({ allow_net: ["www.example.org"] });
    const handles = [
      await reach.hold("http", [web, 80], "www.example.org"),
      await reach.hold("tls", [web, 443], "www.example.org"),
    ] as const;
    await expectGoingOn(handles[0], { allow_net: ["*.example.org"], deny_net: ["other.example.org"] });
    expect((await reach.state(handles[1])).endedAt).toBeNull();
    await reach.release();
  });
});

describe.skipIf(lacks("root"))("a change of the policy", () => {
  it("that allows more does so at once", async () => {
    for (let i = 0; i < 5; i++) {
      await sandbox.setNetwork({ allow_net: [otherWeb] });
      expect(await reach.try(direct)).toBe("refused ECONNREFUSED");
      await sandbox.setNetwork({ allow_net: [otherWeb, web] });
      expect(await reach.try(direct)).toBe("open");
    }
  });

  it("lets nothing through, in a flood of connections, that neither policy allows", async () => {
    const policies: NetworkRequest[] = [
      { allow_net: [`${web}:7000`] },
      { allow_net: [`${web}:5432`], deny_net: [otherWeb] },
      { allow_net: null, deny_net: [otherWeb, `${web}:853`] },
      { allow_net: ["www.example.org:9999", `${web}:7000`] },
    ];
    const never: Place[] = [
      [web, 853],
      [otherWeb, 7_000],
      [lan, 7_000],
      [metadata, 8_080],
    ];
    await sandbox.setNetwork(policies[0] ?? { allow_net: ["none"] });
    const from = internet.arrivals.length;
    const storm = await reach.storm([...never, direct, otherPort], { atOnce: 12 });
    const until = performance.now() + 2_000; // a fast machine is through with them before there is a flood
    for (let i = 1; i <= 50 || performance.now() < until; i++)
      await sandbox.setNetwork(policies[i % policies.length] ?? { allow_net: ["none"] });
    const { attempts, opened } = await reach.calm(storm);
    expect(attempts).toBeGreaterThan(500);
    // what one of them allows gets through now and then, which shows that the flood went on all the time
    expect(Object.keys(opened).toSorted()).toEqual([`${web}:5432`, `${web}:7000`]);
    for (const [address, port] of never) expect(internet.seen(`tcp ${address}:${port}`, from)).toEqual([]);
    expect(internet.seen(`http ${metadata}`, from)).toEqual([]);
  });

  it.each([
    [{ allow_net: ["http://example.org"] }],
    [{ allow_net: ["10.1.2.3/8"] }],
    [{ allow_net: ["127.0.0.1"] }],
    [{ allow_net: ["10.200.0.5"] }],
    [{ allow_net: [web], deny_net: ["*.*.org"] }],
    [{ allow_net: ["none", web] }],
    [{ allow_net: Array.from({ length: 257 }, (_, i) => `h${i}.example.org`) }],
    [{ allow_net: null, net_limits: { down_kbit: 1 } }],
    [{ allow_net: null, net_limits: { connections_per_s: 0 } }],
  ])("to %j is refused, and changes nothing", async (network) => {
    await sandbox.setNetwork({ allow_net: [web], net_limits: { down_kbit: 800_000 } });
    const before = await sandbox.network();
    const handle = await reach.hold("echo", direct);
    await expect(sandbox.setNetwork(network)).rejects.toMatchObject({ code: "invalid_request" });
    const after = await sandbox.network();
    for (const field of ["allow_net", "deny_net", "net_limits"] as const) expect(after[field]).toEqual(before[field]);
    expect(await reach.opens([otherWeb, 7_000])).toBe(false);
    expect((await reach.state(handle)).endedAt).toBeNull();
    await reach.release();
  });

  it("is in force after a kill -9 of squashd", async () => {
    const network = {
      allow_net: [`${web}:7000`, "www.other.net"],
      deny_net: [otherWeb],
      net_limits: { up_kbit: 90_000 },
    };
    await sandbox.setNetwork(network);
    await squashd.end("SIGKILL");
    await squashd.start();
    expect(await sandbox.network()).toMatchObject(network);
    expect(await reach.opens(direct)).toBe(true);
    for (const place of [otherPort, [otherWeb, 7_000], [lan, 7_000]] as const)
      expect(await reach.opens(place)).toBe(false);
  });

  it("that a kill -9 of squashd interrupts is in force as a whole or not at all", async () => {
    const [before, after] = [[`${web}:7000`], [`${web}:5432`]];
    for (const delay of [0, 1, 3, 6]) {
      await sandbox.setNetwork({ allow_net: before });
      const changing = sandbox.setNetwork({ allow_net: after }).then(
        () => "answered",
        () => "lost",
      );
      await pause(delay);
      await squashd.end("SIGKILL");
      const answer = await changing;
      await squashd.start();
      const { allow_net: kept } = await sandbox.network();
      expect([before, after]).toContainEqual(kept);
      if (answer === "answered") expect(kept).toEqual(after);
      expect(await reach.opens(direct)).toBe(kept?.[0] === before[0]);
      expect(await reach.opens(otherPort)).toBe(kept?.[0] === after[0]);
    }
  });
});

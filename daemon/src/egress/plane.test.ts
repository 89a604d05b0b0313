import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, describe, expect, it, vi } from "vitest";
import type { Decision } from "../core/egress/decision.js";
import type { RotatedToken, Secret } from "../core/secrets/secret.js";
import type { SecretUse } from "../core/secrets/secret-use.js";
import type { PlaneEvents } from "../core/egress/plane.js";
import { NameServer } from "./dns/testing/name-server.js";
import { addressesIn, UdpClient } from "./dns/testing/dns-client.js";
import { ThreadPlane, type PlaneOptions } from "./plane.js";

const folder = mkdtempSync(join(tmpdir(), "plane-test-"));
const open: ThreadPlane[] = [];
const reports: string[] = [];
let counter = 0;

afterEach(async () => {
  vi.useRealTimers();
  for (const plane of open.splice(0)) await plane.close();
  reports.length = 0;
});
afterAll(() => rmSync(folder, { recursive: true }));

async function start(options: Partial<PlaneOptions> = {}): Promise<ThreadPlane> {
  const plane = await ThreadPlane.start({
    gateway: "127.0.0.1",
    gateway6: null,
    subnets: ["10.200.0.0/14"],
    resolvConf: "/dev/null",
    resolverPort: 53,
    apiPort: null,
    extraRoots: null,
    report: (error) => reports.push(error),
    ...options,
  });
  open.push(plane);
  return plane;
}

/**
 * A thread that does what its script says: `serve(message, answer)` gets every request; `serve.clients` are those that are known. It keeps the
 * ports that it is told.
 */
function fakeThread(script: string, before = ""): string {
  const path = join(folder, `thread-${++counter}.mjs`);
  const text = `
    import { parentPort, workerData } from "node:worker_threads";
    const clients = [];
    const answer = (message, more = {}) =>
      parentPort.postMessage({ type: "done", id: message.id, counters: null, error: null, ...more });
    const figures = (dnsAllowed) => ({ dnsAllowed, dnsRefused: 0, dnsLimited: 0, openConnections: 0, refusedConnections: 0 });
    ${before}
    parentPort.on("message", (message) => {
      if (message.type === "set") clients.push(message.client.sandbox);
      ${script}
    });
    parentPort.postMessage({ type: "ready", ports: workerData.ports ?? { dnsUdp: 1, dnsTcp: 2, http: 3, tls: 4, explicit: 7, http6: 5, tls6: 6 } });`;
  writeFileSync(path, text);
  return path;
}

const client = (sandbox: string, allow: readonly string[] | null = null, address = "127.0.0.50") => ({
  sandbox,
  address,
  address6: null,
  spec: { allow, deny: [] },
  secrets: [],
  ca: null,
});

class Heard implements PlaneEvents {
  readonly learned: string[] = [];
  readonly decisions: Decision[] = [];
  readonly uses: SecretUse[] = [];
  readonly tokens: RotatedToken[] = [];
  learn: PlaneEvents["learn"] = (address, name, { addresses, ttlS }) => {
    this.learned.push(`${address} ${name} ${addresses.join(",")} ${ttlS}`);
    return Promise.resolve();
  };

  decided(decision: Decision): void {
    this.decisions.push(decision);
  }

  used(use: SecretUse): void {
    this.uses.push(use);
  }

  rotated(token: RotatedToken): void {
    this.tokens.push(token);
  }
}

describe("ThreadPlane with its thread", () => {
  it("answers for those that it knows, when the domain has put the addresses into force", async () => {
    const server = await NameServer.start("127.0.0.60");
    const resolvConf = join(folder, "resolv.conf");
    writeFileSync(resolvConf, "nameserver 127.0.0.60\n");
    const data = "93.184.216.34";
    server.scripts.set("A www.example.org", { answers: [{ type: "A", name: "www.example.org", ttl: 100, data }] });
    const plane = await start({ resolvConf, resolverPort: server.port });
    const asker = await UdpClient.from("127.0.0.50", plane.ports.dnsUdp);
    const heard = new Heard();
    const figures = async () => {
      const { dnsAllowed, dnsRefused } = await plane.counters("127.0.0.50");
      return [dnsAllowed, dnsRefused];
    };

    await plane.set(client("box", ["www.example.org"]));
    // nobody is connected yet: no answer may leave without its address being in force
    expect((await asker.ask("www.example.org")).code).toBe(2);
    plane.connect(heard);
    expect(addressesIn(await asker.ask("www.example.org"))).toEqual([data]);
    expect(heard.learned).toEqual([expect.stringMatching(/^127\.0\.0\.50 www\.example\.org 93\.184\.216\.34 \d+$/)]);
    expect(heard.decisions).toMatchObject([{ sandbox: "box", kind: "dns", name: "www.example.org", allowed: true }]);
    expect(await figures()).toEqual([1, 1]);

    heard.learn = () => Promise.reject(new Error("the kernel refused it"));
    expect((await asker.ask("www.example.org")).code).toBe(2);
    await plane.set(client("box", ["none"]));
    await asker.send(Buffer.alloc(0));
    expect(await asker.next(200)).toBeNull();

    // the address passes to another one, which starts with nothing
    await plane.set(client("other", ["other.example"]));
    expect(await figures()).toEqual([0, 0]);
    expect((await asker.ask("www.example.org")).code).toBe(5);
    await plane.remove("127.0.0.50");
    expect(await figures()).toEqual([0, 0]);
    await plane.remove("127.0.0.50");
    asker.close();
    await server.close();
  });

  it("refuses what is no policy", async () => {
    const plane = await start();
    await expect(plane.set(client("box", ["exa mple"]))).rejects.toMatchObject({ code: "internal" });
  });

  it("does not start at an address that is not the machine's", async () => {
    const starting = start({ gateway: "192.0.2.1" });
    await expect(starting).rejects.toMatchObject({ code: "kernel" });
    await expect(starting).rejects.toThrow(/Cannot answer for sandboxes at 192\.0\.2\.1/);
  });
});

describe("secrets", () => {
  const secrets = { secrets: [{ name: "A", value: "v" } as Secret], authorities: [] };

  it("are told to the thread, and uses of them and tokens in place of others to the domain", async () => {
    const used = `answer(message); parentPort.postMessage({ type: "used", use: { secret: message.secrets?.secrets[0]?.name } });
      parentPort.postMessage({ type: "rotated", token: { secret: "A", before: "one", after: "two" } });`;
    const plane = await start({ thread: fakeThread(used) });
    const heard = new Heard();
    plane.connect(heard);
    await plane.setSecrets(secrets);
    await expect.poll(() => heard.uses).toContainEqual({ secret: "A" });
    await expect.poll(() => heard.tokens).toContainEqual({ secret: "A", before: "one", after: "two" });
  });

  it("are told to the next thread before any sandbox is", async () => {
    const script = `
      if (message.type === "counters") answer(message, { counters: figures(clients.join() === "secrets A,box" ? 7 : 0) });
      else if (message.type === "remove") process.exit(3);
      else answer(message);`;
    const before = `
      parentPort.on("message", (message) => {
        if (message.type === "secrets") clients.push("secrets " + message.secrets.secrets.map(({ name }) => name).join());
      });`;
    const plane = await start({ thread: fakeThread(script, before) });
    await plane.setSecrets(secrets);
    await plane.set(client("box"));
    await expect(plane.remove("127.0.0.99")).rejects.toThrow(/ended with status 3/);
    await expect.poll(async () => (await plane.counters("127.0.0.50")).dnsAllowed).toBe(7);
  });

  it("come and go for a sandbox that is known to the real thread", async () => {
    const plane = await start();
    await plane.set({ ...client("box"), secrets: ["A"], ca: "f" });
    await plane.setSecrets(secrets);
    await plane.setSecrets({ secrets: [], authorities: [] });
    expect((await plane.counters("127.0.0.50")).openConnections).toBe(0);
  });
});

describe("a thread that ends", () => {
  const crashing = `
    if (message.type === "counters") {
      if (message.address === "crash") throw new Error("the end of " + clients);
      if (message.address === "exit") process.exit(3);
      if (message.address === "crash later") setTimeout(() => { throw new Error("late"); }, 10);
      else return answer(message, { counters: figures(clients.length) });
    } else answer(message);`;

  it.each([
    ["crash", /the end of one,two/],
    ["exit", /ended with status 3/],
    ["crash later", /late/],
  ])("is replaced by one at the same ports that knows the same sandboxes: %s", async (how, reason) => {
    const before = `if (workerData.ports) clients.push(JSON.stringify(workerData.ports));`;
    const plane = await start({ thread: fakeThread(crashing, before) });
    const { ports } = plane;
    await plane.set(client("one", null, "127.0.0.50"));
    await plane.set(client("two", null, "127.0.0.51"));
    await expect(plane.counters(how)).rejects.toThrow(reason);
    // the ports, which it would not be told at a first start, and both
    expect(await plane.counters("any")).toMatchObject({ dnsAllowed: 3 });
    expect(plane.ports).toEqual(ports);
    expect(reports).toEqual([expect.stringMatching(/^the egress thread is started again: /)]);
    await expect(plane.counters("crash")).rejects.toThrow(
      /the end of \{"dnsUdp":1,"dnsTcp":2,"http":3,"tls":4,"explicit":7,"http6":5,"tls6":6\},one,two/,
    );
  });

  it("is not told of those that were removed, and tried again until it starts", async () => {
    const marker = join(folder, "tries");
    const before = `
      import { existsSync, readFileSync, writeFileSync } from "node:fs";
      const tries = existsSync(${JSON.stringify(marker)}) ? Number(readFileSync(${JSON.stringify(marker)})) : 0;
      writeFileSync(${JSON.stringify(marker)}, String(tries + 1));
      if (tries === 1 || tries === 2) throw new Error("busy");`;
    const plane = await start({ thread: fakeThread(crashing, before) });
    await plane.set(client("one", null, "127.0.0.50"));
    await plane.set(client("two", null, "127.0.0.51"));
    await plane.remove("127.0.0.50");
    await expect(plane.counters("crash")).rejects.toThrow();
    await expect.poll(() => plane.counters("any").catch(() => null)).toMatchObject({ dnsAllowed: 1 });
    expect(reports).toHaveLength(3);
  });
});

describe("a thread that does not answer", () => {
  const silent = `if (message.type !== "counters" && message.type !== "close") answer(message);`;

  it("is replaced", async () => {
    const plane = await start({ thread: fakeThread(silent) });
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    const asked = expect(plane.counters("x")).rejects.toThrow(/did not answer counters in time/);
    await vi.advanceTimersByTimeAsync(10_000);
    await asked;
    vi.useRealTimers();
    expect(reports).toHaveLength(1);
  });

  it("is ended by close() in bounded time; who waits learns it", async () => {
    const plane = await start({ thread: fakeThread(silent) });
    const asked = expect(plane.counters("x")).rejects.toThrow(/shutting down/);
    const began = performance.now();
    await plane.close();
    expect(performance.now() - began).toBeLessThan(4_000);
    await asked;
  });

  it("not even when it should start again is waited for long by close()", async () => {
    const before = `if (workerData.ports) await new Promise(() => setInterval(() => {}, 1000));`;
    const plane = await start({ thread: fakeThread(`throw new Error("end")`, before) });
    await expect(plane.remove("x")).rejects.toThrow("end");
    const began = performance.now();
    await new Promise((done) => setTimeout(done, 300));
    await plane.close();
    expect(performance.now() - began).toBeLessThan(4_000);
  });
});

describe("close()", () => {
  it("ends it for good: what is asked for afterwards is refused, and nothing starts again", async () => {
    const plane = await start();
    await plane.set(client("box"));
    await plane.close();
    const refused = { code: "shutting_down" };
    await expect(plane.set(client("box"))).rejects.toMatchObject(refused);
    await expect(plane.remove("127.0.0.50")).rejects.toMatchObject(refused);
    await expect(plane.counters("127.0.0.50")).rejects.toMatchObject(refused);
    await plane.close();
    const again = await start({ gateway: "127.0.0.1" });
    expect(again.ports.http).not.toBe(0);
    expect(reports).toEqual([]);
  });
});

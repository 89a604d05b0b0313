import { once } from "node:events";
import { connect, createServer, Socket, type AddressInfo, type Server } from "node:net";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { Accounts } from "./accounts.js";
import { SecretSet } from "../secrets/secret-set.js";
import type { Connection, Flow } from "./connection.js";
import { SecretUses } from "./secret-uses.js";
import { dial } from "./dial.js";
import { defaultTimings } from "./timings.js";
import { FakePolicy } from "./testing/fake-policy.js";

let server: Server;
let connection: Connection;
let policy: FakePolicy;
let opened: string[];

beforeEach(async () => {
  opened = [];
  policy = new FakePolicy(["a.test"]);
  server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const accounts = new Accounts({
    find: (address) => ({ sandbox: "alice", address, policy, secrets: [], authority: null }),
    audit: () => undefined,
    limit: 1,
    uses: new SecretUses(
      () => undefined,
      (secrets) => SecretSet.compile(secrets),
    ),
  });
  connect((server.address() as AddressInfo).port, "127.0.0.1").on("error", () => undefined);
  const [socket] = (await once(server, "connection")) as [Socket];
  connection = accounts.admit(socket, "tls")!;
});
afterEach(() => {
  connection.cut();
  server.close();
});

/** Every address but those in `answering` swallows what is sent to it. */
function dialAll(
  addresses: readonly string[],
  { connectMs = 60, dialMs = 1_000, answering = "", ipv6 = false } = {},
): Promise<Socket> {
  const flow: Flow = { name: "a.test", port: 80, address: null };
  return dial(connection, flow, {
    resolve: (_, family) => Promise.resolve(addresses.filter((each) => each.includes(":") === (family === 6))),
    ipv6,
    timings: { ...defaultTimings, connect: connectMs, dial: dialMs },
    open: (address) => {
      opened.push(address);
      const socket = new Socket();
      if (address === answering) setTimeout(() => socket.emit("connect"), 5);
      return socket;
    },
  });
}

const five = ["203.0.113.1", "203.0.113.2", "203.0.113.3", "203.0.113.4", "203.0.113.5"];

describe("dial()", () => {
  it("gives each address its time, tries them in order, and four at most", async () => {
    const before = performance.now();
    await expect(dialAll(five)).rejects.toMatchObject({ reason: "too slow" });
    expect(performance.now() - before).toBeGreaterThan(220);
    expect(opened).toEqual(five.slice(0, 4));
  });

  it("ends when the time for all of them is over", async () => {
    await expect(dialAll(five, { connectMs: 200, dialMs: 300 })).rejects.toMatchObject({ reason: "too slow" });
    expect(opened.length).toBeLessThan(five.length);
  });

  it("leaves out what the policy refuses, and what is no IPv4 address", async () => {
    policy = new FakePolicy(["a.test"], [five[0]!]);
    await dialAll(["::1", "name", ...five], { answering: five[1]! });
    expect(opened).toEqual([five[1]]);
  });

  it("tries the client's family first, then the other, half of the tries each", async () => {
    const six = ["2606:2800::1", "2606:2800::2", "2606:2800::3"];
    await expect(dialAll([...six, ...five], { ipv6: true })).rejects.toMatchObject({ reason: "too slow" });
    expect(opened).toEqual([...five.slice(0, 2), ...six.slice(0, 2)]);
    opened = [];
    await dialAll([...six, five[0]!], { ipv6: true, answering: six[1]! });
    expect(opened).toEqual([five[0], six[0], six[1]]);
  });

  it("asks the policy again when it is connected", async () => {
    const dialling = dialAll([five[0]!], { answering: five[0]! });
    await Promise.resolve();
    setTimeout(() => (policy = new FakePolicy(["a.test"], five)), 1);
    await expect(dialling).rejects.toMatchObject({ rule: "private address", address: five[0] });
    expect(opened).toHaveLength(1);
  });

  it("stops when the client goes", async () => {
    const dialling = dialAll(five, { connectMs: 10_000, dialMs: 60_000 });
    setTimeout(() => connection.client.destroy(), 20);
    await expect(dialling).rejects.toMatchObject({ reason: "gone" });
    expect(opened).toHaveLength(1);
  });
});

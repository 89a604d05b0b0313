import { once } from "node:events";
import { createServer, type Server, type Socket } from "node:net";
import { connect as connectTls, createServer as createTlsServer } from "node:tls";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { extension, helloFor, helloMessage, records, serverName } from "./testing/build-hello.js";
import { Peer, connectFrom } from "./testing/peer.js";
import { alice, bob, first, makeBed, second, type Bed } from "./testing/proxy-bed.js";

let bed: Bed;
let served: Peer[];

beforeEach(async () => {
  served = [];
  bed = await makeBed({ hello: 300, connect: 300, dial: 700, resolve: 400 });
});
afterEach(() => bed[Symbol.asyncDispose]());

/** A server that keeps what comes, and says who it is when there is a first byte. */
function named(name: string): Server {
  return createServer({ allowHalfOpen: true }, (socket) => {
    const peer = new Peer(socket);
    served.push(peer);
    socket.once("data", () => socket.write(`${name}:`));
  });
}

const hello = helloFor("a.test");
const alertOf = (peer: Peer): number | undefined =>
  peer.bytes.length === 7 && peer.bytes[0] === 21 ? peer.bytes[6] : -1;

async function refused(bytes: Buffer): Promise<{ alert: number | undefined; log: string[] }> {
  const peer = await bed.tls();
  peer.socket.write(bytes);
  await peer.closed;
  return { alert: alertOf(peer), log: bed.log() };
}

async function bothEnds(bytes = hello): Promise<{ client: Peer; server: Peer }> {
  const client = await bed.tls();
  client.socket.allowHalfOpen = true;
  client.socket.write(bytes);
  await client.until(/:/);
  return { client, server: served.at(-1)! };
}

describe("an allowed name", () => {
  it("is connected to where it resolves to, with every byte passed on", async () => {
    await bed.serve(first, named("first"));
    const { client, server } = await bothEnds(Buffer.concat([hello, Buffer.from("more")]));
    await server.until(/more$/);
    expect(server.bytes.equals(Buffer.concat([hello, Buffer.from("more")]))).toBe(true);
    client.socket.write("up");
    server.socket.write("down");
    await client.until(/^first:down$/);
    await server.until(/moreup$/);
    expect(bed.decisions).toEqual([
      {
        ...{ sandbox: "alice", kind: "tls", name: "a.test", address: first, port: 443, protocol: "tcp" },
        ...{ allowed: true, rule: "allow a.test" },
      },
    ]);
    expect(bed.proxy.counters(alice)).toEqual({ open: 1, allowed: 1, refused: 0 });
    client.socket.end();
    server.socket.end();
    await expect.poll(() => bed.proxy.counters(alice).open).toBe(0);
  });

  it("may come in fragments and in many records", async () => {
    await bed.serve(first, named("first"));
    const client = await bed.tls();
    client.socket.setNoDelay(true);
    const bytes = records(hello.subarray(5), [1, 2, 3, 4, 5]);
    for (let at = 0; at < bytes.length; at += 7) {
      client.socket.write(bytes.subarray(at, at + 7));
      await new Promise(setImmediate);
    }
    await client.until(/^first:$/);
    expect(served[0]!.bytes.equals(bytes)).toBe(true);
  });

  it("serves a real handshake and real data", async () => {
    const psk = { pskCallback: () => Buffer.from("0123456789abcdef"), ciphers: "PSK-AES128-GCM-SHA256" };
    const server = createTlsServer({ ...psk, maxVersion: "TLSv1.2" }, (socket) => socket.pipe(socket));
    await bed.serve(first, server);
    const client = connectTls({
      socket: (await bed.tls()).socket.removeAllListeners("data"),
      ...{ servername: "a.test", maxVersion: "TLSv1.2", ciphers: psk.ciphers },
      checkServerIdentity: () => undefined,
      pskCallback: () => ({ psk: psk.pskCallback(), identity: "x" }),
    });
    await once(client, "secureConnect");
    client.write("hello");
    expect(String((await once(client, "data"))[0])).toBe("hello");
    client.destroy();
  });

  it("goes on at the next address where one does not answer, and tries four at most", async () => {
    await bed.serve(second, named("second"));
    bed.names.set("a.test", () => ["127.0.1.9", "not an address", "::1", "127.0.1.8", second]);
    await bothEnds();
    expect(bed.log()).toEqual([`a.test ${second} allowed allow a.test`]);
    bed.names.set("a.test", () => ["127.0.1.5", "127.0.1.6", "127.0.1.7", "127.0.1.8", second]);
    expect(await refused(hello)).toMatchObject({ alert: 80 });
    expect(bed.log().at(-1)).toBe("a.test null allowed allow a.test");
  });

  it.each([
    ["does not resolve", () => Promise.reject(new Error("no such name"))],
    ["resolves to nothing", () => []],
    ["never resolves", () => new Promise<never>(() => undefined)],
    ["is not listened at", () => ["127.0.1.9"]],
  ])("gets an alert where it %s", async (_, resolve) => {
    bed.names.set("a.test", resolve);
    expect(await refused(hello)).toEqual({ alert: 80, log: ["a.test null allowed allow a.test"] });
  });
});

describe("what is refused", () => {
  beforeEach(() => bed.serve(first, named("first")));
  afterEach(() => expect(served).toEqual([])); // nothing of it reached a server

  it("is a name that the policy does not allow, forged or not", async () => {
    expect(await refused(helloFor("c.test"))).toEqual({ alert: 49, log: ["c.test null refused not listed"] });
  });

  it("is a client without a name", async () => {
    expect(await refused(helloFor())).toEqual({ alert: 112, log: ["null null refused no server name"] });
  });

  it("is an encrypted hello, also with an allowed name outside", async () => {
    const bytes = records(helloMessage({ extensions: [serverName("a.test"), extension(0xfe0d, Buffer.alloc(9))] }));
    expect(await refused(bytes)).toEqual({ alert: 40, log: ["a.test null refused encrypted client hello"] });
  });

  it.each([
    ["an address as the name", helloFor(first)],
    ["two names", helloFor("a.test", "c.test")],
    ["HTTP", Buffer.from("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")],
    ["SSH", Buffer.from("SSH-2.0-OpenSSH\r\n")],
  ])("is %s", async (_, bytes) => {
    const { alert, log } = await refused(bytes);
    expect(alert).toBe(50);
    expect(log).toHaveLength(1);
    expect(log[0]).toMatch(/^null null refused /);
  });

  it("is a name whose addresses are all refused, of which the allowed ones are taken otherwise", async () => {
    bed.allow(alice, ["a.test"], [first]);
    expect(await refused(hello)).toEqual({ alert: 49, log: [`a.test ${first} refused private address`] });
  });

  it("is a ClientHello that does not come in time, though a byte comes now and then", async () => {
    const peer = await bed.tls();
    let at = 0;
    const drip = setInterval(() => peer.socket.write(hello.subarray(at, ++at)), 20);
    const before = performance.now();
    await peer.closed.finally(() => clearInterval(drip));
    expect(performance.now() - before).toBeLessThan(1_500);
    expect(bed.log()).toEqual(["null null refused no ClientHello in time"]);
  });

  it("is a client that nobody knows, at once and without a word", async () => {
    const peer = await connectFrom("127.0.0.99", bed.tlsPort).catch(() => null);
    await peer?.closed;
    expect(peer?.text ?? "").toBe("");
    expect(bed.decisions).toEqual([]);
  });

  it("is a sandbox that ended while its ClientHello came, also where another one has its address by then", async () => {
    const [gone, replaced] = [await bed.tls(), await bed.tls(bob)];
    for (const peer of [gone, replaced]) peer.socket.write(hello.subarray(0, 20));
    await expect.poll(() => bed.proxy.counters(bob).open).toBe(1);
    bed.clients.delete(alice);
    bed.clients.set(bob, { ...bed.clients.get(bob)!, sandbox: "carol" });
    for (const peer of [gone, replaced]) peer.socket.write(hello.subarray(20));
    await Promise.all([gone.closed, replaced.closed]);
    expect([gone.text, replaced.text]).toEqual(["", ""]);
  });

  it("is what a new policy refuses that came while the ClientHello was read", async () => {
    const peer = await bed.tls();
    peer.socket.write(hello.subarray(0, 20));
    await expect.poll(() => bed.proxy.counters(alice).open).toBe(1);
    bed.allow(alice, ["b.test"]);
    peer.socket.write(hello.subarray(20));
    await peer.closed;
    expect(bed.log()).toEqual(["a.test null refused not listed"]);
  });

  it.each([
    ["name", ["b.test"], []],
    ["address", ["a.test"], [first]],
  ])("is a %s that a new policy refuses which came while it was resolved", async (_, names, addresses) => {
    let resolve: (addresses: string[]) => void = () => undefined;
    const asked = new Promise<void>((reached) =>
      bed.names.set("a.test", () => {
        reached();
        return new Promise<string[]>((done) => (resolve = done));
      }),
    );
    const peer = await bed.tls();
    peer.socket.write(hello);
    await asked;
    bed.allow(alice, names, addresses);
    resolve([first]);
    await peer.closed;
    expect(bed.log()).toHaveLength(1);
    expect(bed.log()[0]).toMatch(/^a\.test .* refused/);
  });
});

describe("a connection", () => {
  beforeEach(() => bed.serve(first, named("first")));

  it("goes to the address that was checked, whatever the name resolves to next", async () => {
    await bed.serve(second, named("second"));
    let asked = 0;
    bed.names.set("a.test", () => [asked++ === 0 ? first : second]);
    bed.allow(alice, ["a.test"], [second]);
    expect((await bothEnds()).client.text).toBe("first:");
    expect(await refused(hello)).toMatchObject({ alert: 49 });
    expect(served).toHaveLength(1);
    expect(asked).toBe(2);
  });

  it("may end in one direction and go on in the other, both ways", async () => {
    const one = await bothEnds();
    one.client.socket.end("last");
    await expect.poll(() => one.server.ended).toBe(true);
    expect(one.server.text).toMatch(/last$/);
    one.server.socket.write("still");
    await one.client.until(/still$/);
    one.server.socket.end();
    await one.client.closed;
    const other = await bothEnds();
    other.server.socket.end("last");
    await expect.poll(() => other.client.ended).toBe(true);
    expect(other.client.text).toBe("first:last");
    other.client.socket.write("still");
    await other.server.until(/still$/);
    other.client.socket.end();
    await other.server.closed;
    await expect.poll(() => bed.proxy.counters(alice).open).toBe(0);
  });

  it("is reset on both sides when one of them resets it", async () => {
    const one = await bothEnds();
    one.client.socket.resetAndDestroy();
    await one.server.closed;
    expect(one.server.error?.code).toBe("ECONNRESET");
    const other = await bothEnds();
    other.server.socket.resetAndDestroy();
    await other.client.closed;
    expect(other.client.error?.code).toBe("ECONNRESET");
    await expect.poll(() => bed.proxy.counters(alice).open).toBe(0);
  });

  it.each(["down", "up"] as const)(
    "carries bytes %s unchanged, and no more of them than the reader takes",
    async (way) => {
      const { client, server } = await bothEnds();
      const [from, to] = way === "down" ? [server, client] : [client, server];
      to.socket.removeAllListeners("data").pause();
      const block = Buffer.alloc(1 << 20);
      block.forEach((_, index) => (block[index] = (index * 7) & 0xff));
      const before = process.memoryUsage();
      for (let round = 0; round < 64; round++) from.socket.write(block);
      from.socket.end();
      await new Promise((resolve) => setTimeout(resolve, 300));
      // what the writer still holds is the same block again and again; the proxy is in this process, too
      expect(from.socket.writableLength).toBeGreaterThan(20 << 20);
      expect(process.memoryUsage().arrayBuffers - before.arrayBuffers).toBeLessThan(8 << 20);
      let at = 0;
      let wrong = 0;
      to.socket.on("data", (chunk: Buffer) => {
        for (let index = 0; index < chunk.length; index += 997) {
          if (chunk[index] !== ((((at + index) % block.length) * 7) & 0xff)) wrong += 1;
        }
        at += chunk.length;
      });
      to.socket.resume();
      await once(to.socket, "end");
      expect({ at, wrong }).toEqual({ at: 64 << 20, wrong: 0 });
    },
  );

  it("is cut within milliseconds when its name or address is no longer allowed, and others go on", async () => {
    await bed.serve(second, named("second"));
    const cut = await bothEnds();
    const kept = await bothEnds(helloFor("b.test"));
    const pump = (socket: Socket): void => {
      const go = (): void => {
        while (socket.writable && socket.write(Buffer.alloc(65_536)));
      };
      socket.on("drain", go);
      go();
    };
    cut.client.socket.allowHalfOpen = false; // libuv reports a reset that comes with data as an end
    kept.client.socket.allowHalfOpen = false;
    cut.client.socket.removeAllListeners("data").resume();
    kept.client.socket.removeAllListeners("data").resume();
    pump(cut.server.socket);
    pump(kept.server.socket);
    await expect.poll(() => cut.client.socket.bytesRead).toBeGreaterThan(1 << 20);
    const before = performance.now();
    bed.allow(alice, ["a.test", "b.test"], [first]);
    await Promise.all([cut.client.closed, cut.server.closed]);
    expect(performance.now() - before).toBeLessThan(250); // with everything in one process on a busy machine
    expect(bed.log().at(-1)).toBe(`a.test ${first} refused private address`);
    const sofar = kept.client.socket.bytesRead;
    await expect.poll(() => kept.client.socket.bytesRead).toBeGreaterThan(sofar + (1 << 20));
    bed.allow(alice, ["a.test"]);
    await Promise.all([kept.client.closed, kept.server.closed]);
    expect(bed.log().at(-1)).toBe(`b.test ${second} refused not listed`);
  });

  it("is cut while its reader takes nothing, and when its sandbox is forgotten", async () => {
    const stuck = await bothEnds();
    stuck.client.socket.pause();
    for (let round = 0; round < 64; round++) stuck.server.socket.write(Buffer.alloc(1 << 20));
    const others = await bed.tls(bob);
    others.socket.write(hello);
    await others.until(/^first:$/);
    bed.proxy.forget(alice);
    await stuck.server.closed;
    expect(bed.proxy.counters(alice)).toEqual({ open: 0, allowed: 0, refused: 0 });
    expect(bed.proxy.counters(bob)).toEqual({ open: 1, allowed: 1, refused: 0 });
    expect(others.socket.destroyed).toBe(false);
  });
});

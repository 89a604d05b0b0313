import { createServer } from "node:http";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { connectFrom, type Peer } from "./testing/peer.js";
import { alice, bob, first, makeBed, type Bed } from "./testing/proxy-bed.js";

let bed: Bed;
beforeEach(async () => {
  bed = await makeBed();
  await bed.serve(
    first,
    createServer((_, response) => response.end("<ok>")),
  );
});
afterEach(() => bed[Symbol.asyncDispose]());

const get = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";

async function served(from: string): Promise<void> {
  const peer = await bed.http(from);
  peer.socket.write(get);
  await peer.until(/<ok>/);
  peer.socket.destroy();
}

describe("EgressProxy", () => {
  it("closes what is beyond 512 connections of a sandbox over both listeners, tells of it once a second, and serves others", async () => {
    const peers = await Promise.all(Array.from({ length: 600 }, (_, index) => (index % 2 ? bed.http() : bed.tls())));
    const closed = (): Peer[] => peers.filter(({ socket }) => socket.destroyed);
    await expect.poll(() => closed().length).toBe(88);
    expect(bed.proxy.counters(alice)).toEqual({ open: 512, allowed: 0, refused: 88 });
    const [limit, ...more] = bed.decisions;
    expect(limit).toMatchObject({ kind: "connection", name: null, address: null, allowed: false, protocol: "tcp" });
    expect(limit?.rule).toBe("more than 512 connections at a time");
    expect(more.length).toBeLessThan(3);
    await served(bob);
    bed.proxy.forget(alice);
    await Promise.all(peers.map((peer) => peer.closed));
    await served(alice);
  });

  it("disconnects who is not known, at once and without a word", async () => {
    for (const port of [bed.httpPort, bed.tlsPort]) {
      const peer = await connectFrom("127.0.0.99", port).catch(() => null); // it may be gone before it is here
      await peer?.closed;
      expect(peer?.text ?? "").toBe("");
    }
    expect(bed.decisions).toEqual([]);
  });

  it("cuts what a sandbox left when another one has its address", async () => {
    const old = await bed.http();
    old.socket.write(get);
    await old.until(/<ok>/);
    bed.clients.set(alice, { ...bed.clients.get(alice)!, sandbox: "carol" });
    await served(alice);
    await old.closed;
    expect(bed.decisions.map(({ sandbox }) => sandbox)).toEqual(["alice", "carol"]);
  });

  it("cuts everything on a recheck of a sandbox that is gone", async () => {
    const idle = await bed.tls();
    const kept = await bed.http();
    kept.socket.write(get);
    await kept.until(/<ok>/);
    bed.clients.delete(alice);
    bed.proxy.recheck(alice);
    await Promise.all([idle.closed, kept.closed]);
    bed.proxy.recheck("127.0.0.77"); // nobody's: nothing to do
  });

  it("ends with all its connections on close()", async () => {
    const peers = [await bed.http(), await bed.tls()];
    await bed.proxy.close();
    await Promise.all(peers.map((peer) => peer.closed));
    await expect(bed.http()).rejects.toThrow("ECONNREFUSED");
  });
});

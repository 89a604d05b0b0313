import { X509Certificate } from "node:crypto";
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { connect, createServer, type SecureContext } from "node:tls";
import { describe, expect, it } from "vitest";
import { makePair } from "../../secrets/ca/authority-pair.js";
import { LeafIssuer } from "./leaf-issuer.js";

const hourMs = 3_600_000;

/** What a client sees that trusts `ca`. */
async function seen(context: SecureContext, host: string, ca: string): Promise<X509Certificate> {
  const server = createServer({ SNICallback: (_, done) => done(null, context) });
  server.on("tlsClientError", () => undefined);
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  try {
    const { port } = server.address() as AddressInfo;
    const socket = connect({ host: "127.0.0.1", port, servername: host, ca });
    await once(socket, "secureConnect");
    const { raw } = socket.getPeerCertificate();
    socket.destroy();
    return new X509Certificate(raw);
  } finally {
    server.close();
  }
}

describe("a leaf certificate", () => {
  it("is one of its host, for a day, which who trusts the authority trusts", async () => {
    const pair = makePair();
    const leaf = await seen(new LeafIssuer(pair).contextFor("a.test"), "a.test", pair.certificatePem);
    expect(leaf.subjectAltName).toBe("DNS:a.test");
    expect(leaf.keyUsage).toEqual(["1.3.6.1.5.5.7.3.1"]);
    expect(leaf.ca).toBe(false);
    const age = Date.now() - Date.parse(leaf.validFrom);
    expect(age).toBeGreaterThanOrEqual(59_000);
    expect(age).toBeLessThan(70_000);
    expect(Date.parse(leaf.validTo) - Date.parse(leaf.validFrom)).toBe(24 * hourMs + 60_000);
    expect(leaf.checkIssued(new X509Certificate(pair.certificatePem))).toBe(true);
    expect(leaf.verify(new X509Certificate(pair.certificatePem).publicKey)).toBe(true);
  });

  it("can be made for names of any length", () => {
    const issuer = new LeafIssuer(makePair());
    for (let length = 1; length <= 200; length += 1) {
      const labels = "x".repeat(length).match(/.{1,60}/g) ?? [];
      issuer.contextFor(`${labels.join(".")}.test`);
    }
  });

  it("is not taken for another host, nor from another authority", async () => {
    const pair = makePair();
    const context = new LeafIssuer(pair).contextFor("a.test");
    await expect(seen(context, "b.test", pair.certificatePem)).rejects.toThrow("does not match");
    await expect(seen(context, "a.test", makePair().certificatePem)).rejects.toThrow(/unable to|self-signed/);
  });

  it("is kept while it has an hour left, and made anew then", () => {
    let now = Date.now();
    const issuer = new LeafIssuer(makePair(), () => now);
    expect(issuer.has("a.test")).toBe(false);
    const first = issuer.contextFor("a.test");
    now += 22.9 * hourMs;
    expect(issuer.has("a.test")).toBe(true);
    expect(issuer.contextFor("a.test")).toBe(first);
    now += 0.2 * hourMs;
    expect(issuer.has("a.test")).toBe(false);
    expect(issuer.contextFor("a.test")).not.toBe(first);
  });

  it("is given up for others when it was not used for the longest", () => {
    const issuer = new LeafIssuer(makePair());
    const [first, second] = [issuer.contextFor("first.test"), issuer.contextFor("second.test")];
    for (let index = 0; index < 511; index += 1) {
      issuer.contextFor(`h${index}.test`);
      if (index === 100) issuer.contextFor("first.test");
    }
    expect(issuer.contextFor("first.test")).toBe(first);
    expect(issuer.contextFor("second.test")).not.toBe(second);
  });

  it("does not outlive its authority, and is not kept beyond it", async () => {
    const birth = new Date(Date.now() + 2 * hourMs);
    birth.setUTCFullYear(birth.getUTCFullYear() - 10);
    const pair = makePair(birth);
    let now = Date.now();
    const issuer = new LeafIssuer(pair, () => now);
    const context = issuer.contextFor("a.test");
    const leaf = await seen(context, "a.test", pair.certificatePem);
    expect(Date.parse(leaf.validTo)).toBe(Math.floor(pair.notAfter.getTime() / 1000) * 1000);
    expect(issuer.contextFor("a.test")).toBe(context);
    now += 2.1 * hourMs;
    expect(issuer.contextFor("a.test")).not.toBe(context);
  });
});

import { describe, expect, it } from "vitest";
import type { NetworkDecision } from "@squash/sdk";
import { useInternet } from "../../support/egress-target.js";
import { places } from "../../support/internet.js";
import { lacks } from "../../support/needs.js";

const target = useInternet();
const { web, otherWeb, foreignResolver, lan, metadata, host, hostPrivate } = places;
const refusedByReset = "ECONNREFUSED";
const refusedByAlert = "ERR_SSL_TLSV1_ALERT_ACCESS_DENIED";

const hello = (address: string, name: string): string => `200 hello from ${address}:80 to ${name}`;
const secret = (address: string, name: string): string => `secret hello from ${address} as ${name}`;

describe.skipIf(lacks("root"))("a name in allow_net", () => {
  it("resolves, and is reached by HTTP, by TLS, and on other ports", async () => {
    await using box = await target.box({ allow_net: ["www.example.org"] });
    const { insider } = box;
    expect(await insider.tcp(web, 7000)).toBe(refusedByReset); // nobody has asked for its name yet
    expect(await insider.lookup("www.example.org")).toBe(`NOERROR ${web}`);
    expect(await insider.lookup("WWW.Example.ORG", { protocol: "tcp" })).toBe(`NOERROR ${web}`);
    expect(await insider.lookup("www.example.org", { type: "AAAA" })).toBe("NOERROR");
    expect(await insider.http(web, "www.example.org")).toBe(hello(web, "www.example.org"));
    expect(await insider.tls(web, "www.example.org")).toBe(secret(web, "www.example.org"));
    expect(await insider.tcp(web, 7000)).toBe(`echo ${web}:7000`);
    expect(await insider.tcp(web, 5432)).toBe(`echo ${web}:5432`);
    expect(await insider.udp(web, 7000)).toBe("ping");
    expect(await insider.tcp(otherWeb, 7000)).toBe(refusedByReset);
  });

  it("is reached by programs in the sandbox", async () => {
    await using box = await target.box({ allow_net: ["www.example.org"] });
    const found = await box.sandbox.exec("nslookup www.example.org");
    expect(found).toMatchObject({ exit_code: 0, stdout: expect.stringContaining(`Address: ${web}`) as string });
    const request = "printf 'GET / HTTP/1.0\\r\\nHost: www.example.org\\r\\n\\r\\n'; sleep 1";
    const answer = await box.sandbox.exec(`(${request}) | nc -w 3 ${web} 80`);
    expect(answer.stdout).toContain(`hello from ${web}:80 to www.example.org`);
    expect((await box.sandbox.exec(`nc -w 3 ${web} 7000 </dev/null`)).stdout).toContain(`echo ${web}:7000`);
    expect(await box.sandbox.exec("nslookup www.other.net")).toMatchObject({ exit_code: 1 });
  });

  it("may be a wildcard, for all depths but not for the name itself", async () => {
    await using box = await target.box({ allow_net: ["*.example.org"] });
    const { insider } = box;
    for (const name of ["www.example.org", "deep.sub.example.org"]) {
      expect(await insider.lookup(name)).toBe(`NOERROR ${web}`);
      expect(await insider.http(web, name)).toBe(hello(web, name));
      expect(await insider.tls(web, name)).toBe(secret(web, name));
    }
    expect(await insider.lookup("unknown.example.org")).toBe("NXDOMAIN");
    expect(await insider.lookup("example.org")).toBe("REFUSED");
    expect(await insider.lookup("www.other.net")).toBe("REFUSED");
  });

  it("may be an alias of one that is not allowed", async () => {
    await using box = await target.box({ allow_net: ["alias.example.org"] });
    const { insider } = box;
    expect(await insider.lookup("alias.example.org")).toBe(`NOERROR ${web}`);
    expect(await insider.http(web, "alias.example.org")).toBe(hello(web, "alias.example.org"));
    expect(await insider.tls(web, "alias.example.org")).toBe(secret(web, "alias.example.org"));
    expect(await insider.tcp(web, 7000)).toBe(`echo ${web}:7000`);
    expect(await insider.lookup("www.example.org")).toBe("REFUSED");
    expect(await insider.http(web, "www.example.org")).toMatch(/^403 squash/);
  });

  it("with a port opens that port only", async () => {
    await using box = await target.box({ allow_net: ["www.example.org:7000", "www.other.net:443"] });
    const { insider } = box;
    expect(await insider.lookup("www.example.org")).toBe(`NOERROR ${web}`);
    expect(await insider.tcp(web, 7000)).toBe(`echo ${web}:7000`);
    expect(await insider.tcp(web, 5432)).toBe(refusedByReset);
    expect(await insider.udp(web, 7000)).not.toBe("ping");
    expect(await insider.http(web, "www.example.org")).toMatch(/^403 squash/);
    expect(await insider.tls(web, "www.example.org")).toBe(refusedByAlert);
    expect(await insider.lookup("www.other.net")).toBe(`NOERROR ${otherWeb}`);
    expect(await insider.tls(otherWeb, "www.other.net")).toBe(secret(otherWeb, "www.other.net"));
    expect(await insider.http(otherWeb, "www.other.net")).toMatch(/^403 squash/);
    expect(await insider.tcp(otherWeb, 7000)).toBe(refusedByReset);
  });

  it("is told from others at the same address", async () => {
    await using box = await target.box({ allow_net: ["www.example.org", "other.example.org"] });
    const { insider } = box;
    for (const name of ["www.example.org", "other.example.org"]) {
      expect(await insider.lookup(name)).toBe(`NOERROR ${web}`);
      expect(await insider.http(web, name)).toBe(hello(web, name));
      expect(await insider.tls(web, name)).toBe(secret(web, name));
    }
    const arrivals = await target.arrivalsOf(async () => {
      expect(await insider.lookup("evil.other.net")).toBe("REFUSED");
      expect(await insider.http(web, "evil.other.net")).toMatch(/^403 squash/);
      expect(await insider.tls(web, "evil.other.net")).toBe(refusedByAlert);
    });
    expect(arrivals).toEqual([]);
    // what one of its names grants stays when the other is gone
    await box.sandbox.setNetwork({ allow_net: ["other.example.org"] });
    expect(await insider.tcp(web, 7000)).toBe(`echo ${web}:7000`);
    expect(await insider.http(web, "www.example.org")).toMatch(/^403 squash/);
    await box.sandbox.setNetwork({ allow_net: ["www.other.net"] });
    expect(await insider.tcp(web, 7000)).toBe(refusedByReset);
  });

  it("stands beside an address, which is reached on 443 without a name", async () => {
    await using box = await target.box({ allow_net: ["www.other.net", `${web}:443`] });
    const { insider } = box;
    expect(await insider.tls(web, "")).toBe(`secret hello from ${web} as false`);
    expect(await insider.tls(web, "evil.other.net")).toBe(secret(web, "evil.other.net"));
    expect(await insider.http(web, "evil.other.net")).toMatch(/^403 squash/);
    expect(await insider.tls(otherWeb, "")).toBe("ERR_SSL_TLSV1_UNRECOGNIZED_NAME");
    expect(await insider.tls(otherWeb, "www.other.net")).toBe(secret(otherWeb, "www.other.net"));
  });
});

describe.skipIf(lacks("root"))('allow_net ["none"]', () => {
  it("gives nothing, and no answer to DNS", async () => {
    await using box = await target.box({ allow_net: ["none"] });
    const { insider } = box;
    const arrivals = await target.arrivalsOf(async () => {
      const answers = [
        await insider.lookup("www.example.org"),
        await insider.lookup("www.example.org", { protocol: "tcp" }),
        await insider.http(web, "www.example.org"),
        await insider.tls(web, "www.example.org"),
        await insider.tcp(web, 7000),
      ];
      expect(new Set(answers.slice(1))).toEqual(new Set([refusedByReset]));
      expect(answers[0]).toMatch(/^(silence|E[A-Z]+)$/);
    });
    expect(arrivals).toEqual([]);
    await box.sandbox.setNetwork({ allow_net: ["www.example.org"] });
    expect(await insider.lookup("www.example.org")).toBe(`NOERROR ${web}`);
  });
});

describe.skipIf(lacks("root"))("an open policy", () => {
  it("reaches everything public and nothing else", async () => {
    await using box = await target.box();
    await using hostSide = await target.host();
    await hostSide.listen(80);
    const { insider } = box;
    expect(await insider.lookup("www.example.org")).toBe(`NOERROR ${web}`);
    expect(await insider.lookup("www.example.org", { server: foreignResolver })).toBe(`NOERROR ${web}`);
    expect(await insider.http(otherWeb, "whatever")).toBe(hello(otherWeb, "whatever"));
    expect(await insider.tls(web, "")).toMatch(/^secret hello/);
    expect(await insider.tcp(web, 5432)).toBe(`echo ${web}:5432`);
    expect(await insider.udp(foreignResolver, 443)).toBe("ping");
    for (const address of [host, hostPrivate]) {
      expect(await hostSide.http(address, "x")).toBe("200 hello from the host");
      expect(await insider.http(address, "x")).toBe(refusedByReset);
    }
    for (const address of [lan, metadata]) {
      expect(await hostSide.http(address, "x")).toBe(hello(address, "x"));
      expect(await insider.http(address, "x")).toBe(refusedByReset);
    }
  });

  it("with a denied name keeps it closed by DNS, HTTP and TLS, but not its neighbour at the same address", async () => {
    await using box = await target.box({ deny_net: ["evil.other.net", "*.wild.other.net"] });
    const { insider } = box;
    const arrivals = await target.arrivalsOf(async () => {
      for (const name of ["evil.other.net", "any.wild.other.net"]) {
        expect(await insider.lookup(name)).toBe("REFUSED");
        expect(await insider.http(web, name)).toMatch(/^403 squash/);
        expect(await insider.tls(web, name)).toBe(refusedByAlert);
      }
    });
    expect(arrivals).toEqual([]);
    expect(await insider.lookup("www.example.org")).toBe(`NOERROR ${web}`);
    expect(await insider.http(web, "www.example.org")).toBe(hello(web, "www.example.org"));
    expect(await insider.tls(web, "www.example.org")).toBe(secret(web, "www.example.org"));
    expect(await insider.tcp(otherWeb, 5432)).toBe(`echo ${otherWeb}:5432`);
  });

  it("may deny one port of a name", async () => {
    await using box = await target.box({ deny_net: ["www.example.org:443", "www.example.org:7000"] });
    const { insider } = box;
    expect(await insider.lookup("www.example.org")).toBe(`NOERROR ${web}`);
    expect(await insider.http(web, "www.example.org")).toBe(hello(web, "www.example.org"));
    expect(await insider.tls(web, "www.example.org")).toBe(refusedByAlert);
    expect(await insider.tls(web, "other.example.org")).toBe(secret(web, "other.example.org"));
    expect(await insider.tcp(web, 7000)).toBe(refusedByReset);
    expect(await insider.tcp(web, 5432)).toBe(`echo ${web}:5432`);
  });
});

describe.skipIf(lacks("root"))("the audit log", () => {
  it("has every kind of decision, and the figures count them", async () => {
    await using box = await target.box({ allow_net: ["www.example.org", "rebind.example.org", `${otherWeb}:5432`] });
    const { insider, sandbox } = box;
    const before = await sandbox.network();
    expect(before).toMatchObject({ dns_allowed: 0, dns_refused: 0, dns_limited: 0, connections_refused: 0 });
    await insider.lookup("www.example.org");
    await insider.lookup("www.other.net", { protocol: "tcp" });
    await insider.lookup("rebind.example.org");
    await insider.http(web, "www.example.org");
    await insider.http(web, "www.other.net");
    await insider.http(web, "rebind.example.org");
    await insider.tls(web, "www.example.org");
    await insider.tls(web, "www.other.net");
    await insider.tls(web, "");
    await insider.tcp(web, 7000);
    await insider.tcp(otherWeb, 5432);
    await insider.tcp(otherWeb, 7000);
    await insider.udp(web, 443);

    const www = { name: "www.example.org", verdict: "allowed", rule: "allow www.example.org" } as const;
    const other = { name: "www.other.net", verdict: "refused", rule: "default: nothing else" } as const;
    const rebound = { name: "rebind.example.org", address: lan, verdict: "refused", rule: "special address" } as const;
    const byAddress = { kind: "connection", name: null } as const;
    const expected: Partial<NetworkDecision>[] = [
      { kind: "dns", ...www, address: null, port: null, protocol: "udp" },
      { kind: "dns", ...other, address: null, port: null, protocol: "tcp" },
      { kind: "dns", ...rebound, port: null, protocol: "udp" },
      { kind: "http", ...www, address: web, port: 80, protocol: "tcp" },
      { kind: "http", ...other, address: null, port: 80, protocol: "tcp" },
      { kind: "http", ...rebound, port: 80, protocol: "tcp" },
      { kind: "tls", ...www, address: web, port: 443, protocol: "tcp" },
      { kind: "tls", ...other, address: null, port: 443, protocol: "tcp" },
      { kind: "tls", name: null, address: null, port: 443, verdict: "refused", rule: "no server name" },
      { ...byAddress, address: web, port: 7000, protocol: "tcp", verdict: "allowed", rule: "resolved name" },
      { ...byAddress, address: otherWeb, port: 5432, verdict: "allowed", rule: `allow ${otherWeb}:5432` },
      { ...byAddress, address: otherWeb, port: 7000, verdict: "refused", rule: "default: nothing else" },
      { ...byAddress, address: web, port: 443, protocol: "udp", verdict: "refused" },
    ];
    for (const decision of expected) {
      await expect
        .poll(() => sandbox.networkLog(), { timeout: 3_000 })
        .toContainEqual(expect.objectContaining(decision));
    }
    for (const { time, sandbox: id } of await sandbox.networkLog()) {
      expect(Math.abs(Date.parse(time) - Date.now())).toBeLessThan(60_000);
      expect(id).toBe(sandbox.id);
    }
    expect((await sandbox.networkLog({ limit: 3 })).length).toBe(3);

    const after = await sandbox.network();
    expect(after).toMatchObject({ dns_allowed: 1, dns_refused: 2 });
    expect(after.connections_refused).toBeGreaterThanOrEqual(6);
    expect(after.sent_bytes).toBeGreaterThan(before.sent_bytes + 1_000);
    expect(after.received_bytes).toBeGreaterThan(before.received_bytes + 1_000);
    expect(after.sent_packets).toBeGreaterThan(before.sent_packets + 20);
  });
});

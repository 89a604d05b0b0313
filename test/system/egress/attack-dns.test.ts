import { randomBytes } from "node:crypto";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { useInternet, type Box } from "../../support/egress-target.js";
import { gateway, type Insider } from "../../support/insider.js";
import { a, places, usualZone } from "../../support/internet.js";
import { lacks } from "../../support/needs.js";

const target = useInternet();
const { web, otherWeb, foreignResolver, resolver, lan, metadata, host, hostPrivate } = places;
const unanswered = /^(silence|E[A-Z]+)$/;

/** Names that arrived at the host's resolver. */
function asked(arrivals: readonly string[]): string[] {
  return arrivals.filter((line) => line.startsWith(`dns ${resolver} `)).map((line) => line.split(" ")[2] ?? "");
}

/** Attackers for attacks that need no policy of their own: one that may do everything public, and one that may use names of one domain. */
const made: { open?: Box; shut?: Box } = {};

beforeAll(async () => {
  made.open = await target.box();
  made.shut = await target.box({ allow_net: ["*.example.org"] });
});
afterAll(async () => {
  for (const box of [made.open, made.shut]) await box?.[Symbol.asyncDispose]();
});

function attackers(): { open: Insider; shut: Insider } {
  const { open, shut } = made;
  if (open === undefined || shut === undefined) throw new Error("the attackers were not made");
  return { open: open.insider, shut: shut.insider };
}

let count = 0;
/** A name that nobody has asked for, so that no cache has it. */
const fresh = (): string => `d${++count}.wild.other.net`;

type Attack = (insider: Insider) => Promise<string>;

/** Ways around squashd's resolver, for a name that is not allowed. */
const detours: Readonly<Record<string, readonly [Attack, works: RegExp, refused: RegExp]>> = {
  "another resolver by UDP": [(it) => it.lookup(fresh(), { server: foreignResolver }), /^NOERROR/, unanswered],
  "another resolver by TCP": [
    (it) => it.lookup(fresh(), { server: foreignResolver, protocol: "tcp" }),
    /^NOERROR/,
    unanswered,
  ],
  "the host's resolver by UDP": [(it) => it.lookup(fresh(), { server: resolver }), /^NOERROR/, unanswered],
  "the host's resolver by TCP": [
    (it) => it.lookup(fresh(), { server: resolver, protocol: "tcp" }),
    /^NOERROR/,
    unanswered,
  ],
  "DNS over TLS": [(it) => it.tcp(foreignResolver, 853), /^echo/, unanswered],
  "DNS over QUIC": [(it) => it.udp(foreignResolver, 853), /^ping/, unanswered],
  "DNS over HTTPS by address": [(it) => it.tls(foreignResolver, ""), /^secret hello/, /UNRECOGNIZED_NAME$/],
  "DNS over HTTPS behind an allowed name": [
    (it) => it.tls(foreignResolver, "www.example.org"),
    new RegExp(`^secret hello from ${foreignResolver}`),
    new RegExp(`^secret hello from ${web}`), // where that name is
  ],
  "the gateway by UDP": [(it) => it.lookup(fresh()), /^NOERROR/, /^REFUSED$/],
  "the gateway by TCP": [(it) => it.lookup(fresh(), { protocol: "tcp" }), /^NOERROR/, /^REFUSED$/],
  "the gateway for text": [(it) => it.lookup(fresh(), { type: "TXT" }), /^NOERROR$/, /^REFUSED$/],
};

describe.skipIf(lacks("root"))("a name that is not allowed is not resolved through", () => {
  it.each(Object.entries(detours))("%s", async (_, [attack, works, refused]) => {
    const { open, shut } = attackers();
    const reached = async (insider: Insider, outcome: RegExp): Promise<string[]> => {
      const arrivals = await target.arrivalsOf(async () => expect(await attack(insider)).toMatch(outcome));
      return arrivals.filter((line) => line.includes(foreignResolver) || line.includes("wild.other.net"));
    };
    expect(await reached(open, works)).not.toEqual([]);
    expect(await reached(shut, refused)).toEqual([]);
  });
});

describe.skipIf(lacks("root"))("a resolver's answer opens no way to", () => {
  const closed: { host?: Insider; named?: Box; allowed?: Box } = {};
  beforeAll(async () => {
    closed.host = await target.host();
    await closed.host.listen(80);
    closed.named = await target.box({ deny_net: ["*.wild.other.net"] });
    closed.allowed = await target.box();
  });
  afterAll(async () => {
    for (const one of [closed.host, closed.named, closed.allowed]) await one?.[Symbol.asyncDispose]();
  });

  it.each([
    ["the LAN", "rebind.example.org", lan],
    ["the LAN, through an alias", "rebind-alias.example.org", lan],
    ["the LAN, beside a public address", "rebind-mixed.example.org", lan],
    ["the metadata server", "rebind-meta.example.org", metadata],
    ["the host's private address", "rebind-private.example.org", hostPrivate],
    ["the host's public address", "rebind-public.example.org", host],
    ["the host's loopback", "rebind-loopback.example.org", "127.0.0.1"],
    ["the gateway", "rebind-host.example.org", gateway],
  ])("%s", async (_, name, address) => {
    // it can be had, from where it may be
    expect(await closed.host?.http(address, name)).toMatch(/^200 hello/);
    const isMixed = name.includes("mixed");
    for (const insider of [attackers().shut, closed.named?.insider]) {
      const arrivals = await target.arrivalsOf(async () => {
        expect(await insider?.lookup(name)).toBe("REFUSED");
        // of several addresses, the proxy takes one that is allowed
        expect(await insider?.tls(web, name)).toMatch(isMixed ? /^secret hello from 93\.184/ : /ACCESS_DENIED$/);
        expect(await insider?.http(web, name)).toMatch(
          isMixed ? /^200 hello from 93\.184/ : /^403 squash: .*(special address|address of the host)/,
        );
        expect(await insider?.http(address, "x")).not.toMatch(/^200/);
        expect(await insider?.tcp(address, 7000)).not.toMatch(/^echo/);
      });
      expect(arrivals.filter((line) => line.includes(address))).toEqual([]);
    }
    if (address === "127.0.0.1" || address === gateway) return; // which no entry opens

    // with an entry for the address itself it works, so that it is the address that was refused
    await closed.allowed?.sandbox.setNetwork({ allow_net: ["*.example.org", address] });
    const found = (await closed.allowed?.insider.lookup(name))?.split(" ");
    expect(found?.[0]).toBe("NOERROR");
    expect(found).toContain(address);
    if (!isMixed) expect(await closed.allowed?.insider.http(web, name)).toMatch(/^200 hello from/);
  });

  it("what a name turns to between two lookups", async () => {
    const name = "flip.example.org";
    const answer = (address: string): typeof usualZone => ({
      ...usualZone,
      [name]: [{ type: "A", name, ttl: 0, data: address }],
    });
    await target.internet.setZone(answer(web));
    await using box = await target.box({ allow_net: [name] });
    const { insider } = box;
    expect(await insider.lookup(name)).toBe(`NOERROR ${web}`);
    expect(await insider.http(web, name)).toMatch(/^200 hello from 93/);
    const arrivals = await target.arrivalsOf(async () => {
      await target.internet.setZone(answer(lan));
      const turned = { timeout: 8_000, interval: 300 };
      await expect.poll(() => insider.lookup(name), turned).toBe("REFUSED");
      // a connection that is kept to where the name was takes no body with it
      const post = `POST / HTTP/1.1\r\nHost: ${name}\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx`;
      const posted = await insider.talk(web, 80, post);
      expect(posted.text).toMatch(/^HTTP\/1\.1 403 [^]*special address/);
      expect(await insider.tls(web, name)).toMatch(/ACCESS_DENIED$/);
      expect(await insider.tcp(lan, 7000)).toBe("ECONNREFUSED");
    });
    expect(arrivals.filter((line) => line.includes(lan))).toEqual([]);
    // where it was before stays open until the answer's time and some more have passed
    expect(await insider.tcp(web, 7000)).toBe(`echo ${web}:7000`);
    await target.internet.setZone(usualZone);
  }, 30_000);
});

const data = (bytes: number): string => randomBytes(bytes).toString("hex");
const base32 = (length: number): string =>
  Array.from(randomBytes(length), (byte) => "abcdefghijklmnopqrstuvwxyz234567".charAt(byte & 31)).join("");

/** Names that carry data out, below *.wild.other.net. */
const tunnels: Readonly<Record<string, () => string>> = {
  "long labels": () => `${data(30)}.wild.other.net`,
  "long names": () => `${Array.from({ length: 14 }, () => data(4)).join(".")}.wild.other.net`,
  // long enough that chance does not make one look like words
  base32: () => `${base32(48)}.wild.other.net`,
  "base32 in short labels": () => `${base32(32)}.${base32(32)}.${base32(32)}.wild.other.net`,
};

describe.skipIf(lacks("root"))("a tunnel through DNS below a wildcard", () => {
  it.each(Object.entries(tunnels))("gets nothing to its server with %s", async (_, name) => {
    const attempts = 4; // few enough that no test here meets a limit of queries
    const attack = async (insider: Insider): Promise<string[]> =>
      asked(
        await target.arrivalsOf(async () => {
          for (let left = attempts; left > 0; left--) await insider.lookup(name(), { type: "TXT" });
        }),
      );
    await using shut = await target.box({ allow_net: ["*.wild.other.net"] });
    expect(await attack(attackers().open)).toHaveLength(attempts);
    expect(await attack(shut.insider)).toEqual([]);
    expect(await shut.insider.lookup("bucket-17-eu-west-1.wild.other.net")).toBe(`NOERROR ${otherWeb}`);
  });

  it("gets no more than 60 new names to its server in a minute, and known ones still resolve", async () => {
    await using box = await target.box({ allow_net: ["*.wild.other.net"] });
    const { insider, sandbox } = box;
    let refused = 0;
    const arrivals = await target.arrivalsOf(async () => {
      for (let n = 0; n < 75 && refused < 5; n++) {
        const found = await insider.lookup(`w${n}.wild.other.net`);
        if (found === "REFUSED") refused += 1;
        if (n > 15) await new Promise((resolve) => setTimeout(resolve, 95));
      }
    });
    expect(refused).toBe(5);
    expect(new Set(asked(arrivals)).size).toBe(60);
    expect(await insider.lookup("w0.wild.other.net")).toBe(`NOERROR ${otherWeb}`);
    const tooMany = { kind: "dns", name: "w62.wild.other.net", verdict: "refused" };
    await expect
      .poll(() => sandbox.networkLog())
      .toContainEqual(expect.objectContaining({ ...tooMany, rule: "tunnel guard: too many new names" }));
  }, 30_000);
});

describe.skipIf(lacks("root"))("a flood of queries", () => {
  it("is answered in part, and counted, while others get all their answers", async () => {
    await using flooder = await target.box({ allow_net: ["*.wild.other.net"] });
    await using other = await target.box({ allow_net: ["www.example.org"] });
    const names = Array.from({ length: 200 }, (_, n) => `f${n % 40}.wild.other.net`);
    const flood = flooder.insider.burst(names, 1_500, 10);
    const answers: string[] = [];
    for (let n = 0; n < 10; n++) answers.push(await other.insider.lookup("www.example.org"));
    expect(new Set(answers)).toEqual(new Set([`NOERROR ${web}`]));
    const answered = await flood;
    expect(answered).toBeGreaterThanOrEqual(20);
    expect(answered).toBeLessThanOrEqual(20 + 10 * 4);
    const { dns_limited: limited, connections_refused: dropped } = await flooder.sandbox.network();
    expect(limited).toBeGreaterThan(20);
    // most of it never comes to where all sandboxes' queries wait
    expect(dropped).toBeGreaterThan(5 * limited);
    const rule = "limit of DNS queries";
    await expect
      .poll(() => flooder.sandbox.networkLog())
      .toContainEqual(expect.objectContaining({ kind: "dns", verdict: "refused", rule }));
    await expect
      .poll(() => flooder.insider.lookup("f1.wild.other.net"), { timeout: 8_000, interval: 300 })
      .toBe(`NOERROR ${otherWeb}`);
  });

  it("that is soon over is answered as a whole, at the rate that there is", async () => {
    await using box = await target.box({ allow_net: ["www.example.org"] });
    const start = performance.now();
    const answers = await Promise.all(Array.from({ length: 26 }, () => box.insider.lookup("www.example.org")));
    expect(answers).toEqual(answers.map(() => `NOERROR ${web}`));
    expect(performance.now() - start).toBeGreaterThan(500);
    expect((await box.sandbox.network()).dns_limited).toBe(0);
  });

  it("by TCP is answered in part as well", async () => {
    await using box = await target.box({ allow_net: ["www.example.org"] });
    const one = (): Promise<string> => box.insider.lookup("www.example.org", { protocol: "tcp" });
    const answers = await Promise.all(Array.from({ length: 60 }, one));
    expect(answers.filter((answer) => answer === `NOERROR ${web}`).length).toBeLessThanOrEqual(40);
    await expect.poll(one, { timeout: 8_000, interval: 500 }).toBe(`NOERROR ${web}`);
  });
});

/** Addresses in the kernel that names of a sandbox have resolved to. */
function learned(address: string): number {
  const text = target.squashd.netns.run("nft", "list", "map", "inet", "squash", "learned");
  return text.split(`${address} . `).length - 1;
}

describe.skipIf(lacks("root"))("a name with hundreds of addresses", () => {
  it("opens few of them, and all names together a bounded number", async () => {
    const many = Array.from({ length: 300 }, (_, n) => `60.${n >> 7}.${n & 127}.1`);
    const zone = Object.fromEntries(
      Array.from({ length: 60 }, (_, n) => {
        const name = `m${n}.wild.other.net`;
        return [name, a(name, ...many.map((address) => address.replace(/1$/, String(n + 2))))];
      }),
    );
    await target.internet.setZone({ ...usualZone, ...zone });
    await using box = await target.box({ allow_net: ["*.wild.other.net"] });
    const { insider, sandbox } = box;
    const { address } = await sandbox.network();
    expect(await insider.lookup("m0.wild.other.net", { server: resolver })).toMatch(unanswered);
    const answer = await insider.lookup("m0.wild.other.net", { protocol: "tcp" });
    expect(answer.split(" ")).toHaveLength(1 + 32);
    expect(learned(address)).toBe(32);
    await insider.burst(Object.keys(zone), 4_500);
    expect(learned(address)).toBeGreaterThan(500);
    expect(learned(address)).toBeLessThanOrEqual(60 * 32);
    const { address: other } = await target.squashd.client.create({ id: "bystander" }).then((one) => one.network());
    expect(learned(other)).toBe(0);
    await target.squashd.client.sandbox("bystander").destroy();
    await sandbox.setNetwork({ allow_net: ["www.example.org"] });
    expect(learned(address)).toBe(0);
    expect(await insider.lookup("www.example.org")).toBe(`NOERROR ${web}`);
    expect(await insider.tcp(web, 7000)).toBe(`echo ${web}:7000`);
    await target.internet.setZone(usualZone);
  }, 30_000);
});

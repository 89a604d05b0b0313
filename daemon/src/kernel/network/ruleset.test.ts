import { describe, expect, it } from "vitest";
import { clientElements, learnedElements } from "../../core/egress/elements.js";
import { marks, modes } from "../../core/egress/firewall.js";
import { specialRanges } from "../../core/egress/special-ranges.js";
import { policyOf } from "../../core/egress/testing/ask.js";
import { parseAddress } from "../../core/egress/address.js";
import { lengthBlocks, undecided } from "../../core/egress/length-blocks.js";
import { renderRuleset, type RulesetFacts } from "./ruleset.js";

const facts: RulesetFacts = {
  subnet: "10.200.0.0/14",
  gateway: "10.200.0.1",
  ports: { dnsUdp: 1001, dnsTcp: 1002, http: 1003, tls: 1004, explicit: 1007 },
  apiPort: 7080,
  specialRanges: specialRanges[4],
  connectionLimit: 777,
  closedInterfaces: [],
  ipv6: {
    subnet: "fd00:10:200::/64",
    gateway: "fd00:10:200::1",
    ports: { http: 1005, tls: 1006 },
    isClosed: true,
  },
};
const text = renderRuleset(facts);
const text4 = renderRuleset({ ...facts, ipv6: null });

/** What the braces behind `head` hold. */
function block(head: string, from = text): string {
  const start = from.indexOf(`${head} {`);
  if (start === -1) throw new Error(`there is no ${head}`);
  const body = start + head.length + 2;
  let depth = 1;
  let at = body;
  for (; depth > 0; at++) depth += from[at] === "{" ? 1 : from[at] === "}" ? -1 : 0;
  return from.slice(body, at - 1);
}

const lines = (chain: string, from = text): string[] =>
  block(`chain ${chain}`, from)
    .trim()
    .split("\n")
    .map((line) => line.trim());
const all = (pattern: RegExp): string[] => [...text.matchAll(pattern)].map((match) => match[1] ?? "");
const chains = all(/^ {2}chain (\w+) \{/gm);
const sets = all(/^ {2}(?:set|map) (\w+) \{/gm);

describe("the ruleset", () => {
  it("replaces the table of an earlier squashd, whether there is one or not", () => {
    expect(text.split("\n").slice(0, 3)).toEqual([
      "table inet squash",
      "delete table inet squash",
      "table inet squash {",
    ]);
  });

  it("names no chain and no set that is not there, and has none twice", () => {
    for (const chain of all(/(?:goto|jump) (\w+)/g)) expect(chains).toContain(chain);
    for (const set of all(/@(\w+)/g)) expect(sets).toContain(set);
    expect(new Set(chains).size).toBe(chains.length);
    expect(new Set(sets).size).toBe(sets.length);
  });

  it("has a chain for each way to it, and a hook for the others", () => {
    const reached = new Set(all(/(?:goto|jump) (\w+)/g));
    for (const chain of chains)
      expect([chain, reached.has(chain)]).toEqual([chain, !block(`chain ${chain}`).includes(" hook ")]);
  });

  it("has a chain before it that uses it, as nft wants it", () => {
    for (const chain of chains)
      for (const [, target = ""] of block(`chain ${chain}`).matchAll(/(?:goto|jump) (\w+)/g))
        expect(chains.indexOf(target)).toBeLessThan(chains.indexOf(chain));
  });

  it("has every set that sandboxes are elements of, of the kind that holds what those hold", () => {
    const entries = Array.from({ length: 33 }, (_, length) => [`0.0.0.0/${length}`, `0.0.0.0/${length}:5/udp`]).flat();
    const entries6 = Array.from({ length: 129 }, (_, length) => [`::/${length}`, `[::]/${length}:5/udp`]).flat();
    const policies = [entries, entries6.slice(0, 129), entries6.slice(129)].map((list) =>
      policyOf("a.example", list.join(" ")),
    );
    const elements = [
      ...policies.flatMap((policy) =>
        clientElements({ index: 0, address: 1, address6: 1n, policy, hasSecrets: true, connectionsPerS: 5 }),
      ),
      ...learnedElements(1n, 2n, [{ all: true, ports: [{ port: 5, protocol: "udp", allowed: true }] }], 9),
      ...learnedElements(1, 2, [{ all: true, ports: [{ port: 5, protocol: "udp", allowed: true }] }], 9),
    ];
    const names = new Set(elements.map(({ set }) => set));
    expect([...names].filter((name) => /^(net|port)/.test(name))).toHaveLength(66 + 258);
    for (const { set, mark, timeoutS, rate } of elements) {
      const definition = block(`${mark === undefined ? "set" : "map"} ${set}`);
      expect([set, definition.includes(": mark;")]).toEqual([set, mark !== undefined]);
      expect([set, definition.includes("flags timeout")]).toEqual([set, timeoutS !== undefined]);
      expect([set, definition.includes("limit rate over")]).toEqual([set, rate !== undefined]);
      expect([set, definition.includes("counter")]).toEqual([set, set === "refused"]);
    }
  });

  it("gives the marks of elements their meaning", () => {
    expect(lines("permit")[0]).toBe(`meta mark set ${marks.permitted}`);
    const maps = all(/meta mark vmap \{ ([^}]*) \}/g);
    const verdicts = `${marks.permitted} : goto permit, ${marks.refused} : goto refuse`;
    for (const map of maps.filter((each) => each.includes("permit"))) expect(map.startsWith(verdicts)).toBe(true);
    expect(maps.at(-2)).toBe(
      `${modes.open} : goto open6, ${modes.openNamed} : goto open_named6, ${modes.openProxied} : goto open_proxied6, ${modes.listed} : goto listed6, ${modes.listedNamed} : goto listed_named6`,
    );
    expect(maps.at(-1)).toBe(
      `${modes.open} : goto open, ${modes.openNamed} : goto open_named, ${modes.openProxied} : goto open_proxied, ${modes.listed} : goto listed, ${modes.listedNamed} : goto listed_named`,
    );
    const values = [...Object.values(marks), ...Object.values(modes), 3, 0];
    expect(new Set(values).size).toBe(values.length);
  });

  it("refuses what nothing has decided on, in every chain that decides", () => {
    const both = ["open", "open_proxied", "listed", "listed_named", "own", "decide", "resolvers"];
    for (const chain of ["gateway", ...both, ...both.map((name) => `${name}6`)])
      expect([chain, lines(chain).at(-1)]).toEqual([chain, "goto refuse"]);
    expect(lines("spoof").at(-1)).toBe("drop");
    // what is public was sorted out before
    for (const [chain, closed] of [
      ["open_named", "ip daddr @special goto refuse"],
      ["open_named6", "ip6 daddr @special6 goto refuse"],
    ] as const) {
      expect(lines(chain).at(-1)).toBe("goto permit");
      expect(lines(chain).indexOf(closed)).toBeGreaterThan(-1);
    }
  });
});

describe("look-ups by address", () => {
  const found = lines("by_address");

  it("have the right mask for each of the 33 lengths, from the least precise to the most precise", () => {
    const masks = found.flatMap((line) => {
      const match = /ip saddr \. (?:\(ip daddr & ([\d.]+)\)|ip daddr) map @net(\d+)/.exec(line);
      return match === null ? [] : [[Number(match[2]), match[1] ?? "255.255.255.255"]];
    });
    const expected = Array.from({ length: 33 }, (_, length) => {
      const bits = "1".repeat(length).padEnd(32, "0").match(/.{8}/g) ?? [];
      return [length, bits.map((byte) => parseInt(byte, 2)).join(".")];
    });
    expect(masks).toEqual(expected);
  });

  it("ask for a port behind the whole address of the same length, with the same mask", () => {
    for (let length = 0; length <= 32; length++) {
      const at = found.findIndex((line) => line.endsWith(`@net${length}`));
      expect(found[at + 1]).toBe(found[at]?.replace(/ map @net/, " . meta l4proto . th dport map @port"));
    }
  });

  it("meet each special range before the entries of its length, and behind those of a shorter one", () => {
    for (const range of specialRanges[4]) {
      const length = Number(range.split("/")[1]);
      const at = found.findIndex((line) => line.startsWith("ip daddr {") && line.includes(range));
      expect([range, at > -1, found[at]?.endsWith("meta mark set 3")]).toEqual([range, true, true]);
      expect(at).toBeLessThan(found.findIndex((line) => line.endsWith(`@net${length}`)));
      if (length > 0) expect(at).toBeGreaterThan(found.findIndex((line) => line.endsWith(`@port${length - 1}`)));
    }
    expect(block("set special")).toContain(specialRanges[4].join(", "));
  });

  it("of resolvers are by port only", () => {
    expect(lines("resolvers").filter((line) => line.includes("@net"))).toEqual([]);
    expect(lines("resolvers").filter((line) => line.includes("@port"))).toHaveLength(33);
  });
});

describe("look-ups by address of IPv6", () => {
  const steps = lines("by_address6").flatMap((line) => {
    const block = /jump (nets6_\d+)$/.exec(line)?.[1];
    return block === undefined ? [line] : lines(block);
  });

  it("have the right mask for each of the 129 lengths, from the most precise to the least precise, ports first", () => {
    const found = steps.flatMap((line) => {
      const match =
        /ip6 saddr \. (?:\(ip6 daddr & ([\da-f:]+)\)|ip6 daddr)( \. meta l4proto \. th dport)? map @(net|port)6_(\d+)/;
      const [, mask = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", port, kind, length] = match.exec(line) ?? [];
      return length === undefined ? [] : [[kind, Number(length), port !== undefined, parseAddress(mask)?.value]];
    });
    const ones = (1n << 128n) - 1n;
    const expected = Array.from({ length: 129 }, (_, at) => {
      const length = 128 - at;
      const mask = (ones >> BigInt(128 - length)) << BigInt(128 - length);
      return [
        ["port", length, true, mask],
        ["net", length, false, mask],
      ];
    });
    expect(found).toEqual(expected.flat());
  });

  it("change no mark that has become a verdict", () => {
    const open = `meta mark & ${undecided} == ${undecided} `;
    for (const line of steps)
      if (line.includes("@net6_") || line.includes("mark set 3")) expect(line.startsWith(open)).toBe(true);
    for (const chain of chains.filter((name) => /^(nets|ports)6_/.test(name))) {
      const found = lines(chain).map((line) => /@(net|port)6_|return/.exec(line)?.[0] ?? line);
      const one = chain.startsWith("nets") ? ["@port6_", "@net6_", "return"] : ["@port6_", "return"];
      expect(found.length % one.length).toBe(one.length - 1);
      expect(found).toEqual(found.map((_, at) => one[at % one.length]));
    }
    for (const { bit } of lengthBlocks) expect(text).toContain(`meta mark & ${bit} == ${bit} jump nets6_`);
  });

  it("meet each special range behind the entries of its length, and before those of a shorter one", () => {
    for (const range of specialRanges[6]) {
      const length = Number(range.split("/")[1]);
      const at = steps.findIndex((line) => / ip6 daddr \{ ([^}]*) \}/.exec(line)?.[1]?.split(", ").includes(range));
      expect([range, at > -1]).toEqual([range, true]);
      expect(at).toBeGreaterThan(steps.findIndex((line) => line.endsWith(`@net6_${length}`)));
      if (length > 0) expect(at).toBeLessThan(steps.findIndex((line) => line.endsWith(`@port6_${length - 1}`)));
    }
    expect(block("set special6")).toContain(specialRanges[6].join(", "));
  });

  it("of resolvers are by port only", () => {
    const blocks = lines("resolvers6").flatMap((line) => /jump (ports6_\d+)$/.exec(line)?.[1] ?? []);
    const found = blocks.flatMap((name) => lines(name));
    expect(found.filter((line) => line.includes("@net"))).toEqual([]);
    expect(found.filter((line) => line.includes("@port6_"))).toHaveLength(129);
  });
});

describe("without IPv6", () => {
  it("there is nothing of it, and what a link sends is dropped as forged", () => {
    expect(text4).not.toMatch(/6_|ip6|chain \w*6 |ipv6/);
    expect(lines("spoof", text4)).toEqual([
      "type filter hook prerouting priority raw; policy accept;",
      "meta iifgroup != 21329 accept",
      "iifname . ip saddr @links accept",
      "drop",
    ]);
  });

  it("IPv4 is decided in the same way", () => {
    for (const chain of [
      "by_address",
      "resolvers",
      "open",
      "open_proxied",
      "open_named",
      "listed",
      "listed_named",
      "own",
      "gateway",
    ])
      expect(lines(chain, text4)).toEqual(lines(chain));
    expect(lines("decide", text4)).toEqual(lines("decide").filter((line) => line !== "meta nfproto ipv6 goto decide6"));
  });
});

describe("facts", () => {
  it("are where they belong", () => {
    expect(lines("to_squashd").filter((line) => line.includes("dnat"))).toEqual([
      "ip daddr 10.200.0.1 udp dport 53 dnat ip to 10.200.0.1:1001",
      "ip daddr 10.200.0.1 tcp dport 53 dnat ip to 10.200.0.1:1002",
      "ip daddr 10.200.0.1 tcp dport 8888 dnat ip to 10.200.0.1:1007",
      "meta nfproto ipv4 iifname @proxied tcp dport 80 dnat ip to 10.200.0.1:1003",
      "meta nfproto ipv4 iifname @proxied tcp dport 443 dnat ip to 10.200.0.1:1004",
      "meta nfproto ipv6 iifname @proxied tcp dport 80 dnat ip6 to [fd00:10:200::1]:1005",
      "meta nfproto ipv6 iifname @proxied tcp dport 443 dnat ip6 to [fd00:10:200::1]:1006",
    ]);
    expect(lines("decide")).toContain("ip daddr 10.200.0.0/14 goto refuse");
    expect(lines("decide")).toContain("add @tracked { iifname ct count over 777 } goto refuse");
    expect(lines("decide6")).toContain("add @tracked { iifname ct count over 777 } goto refuse");
    expect(lines("decide6")[0]).toBe("ip6 daddr fd00:10:200::/64 goto refuse");
    for (const chain of ["own", "own6"]) expect(lines(chain)[0]).toBe("tcp dport 7080 goto refuse");
  });

  it("lead to the proxy that programs ask only sandboxes that have secrets, within their limits", () => {
    expect(lines("gateway").at(-2)).toBe("iifname @explicit tcp dport 8888 goto explicit");
    expect(lines("explicit")).toEqual([
      "iifname @rates goto refuse",
      "add @tracked { iifname ct count over 777 } goto refuse",
      "accept",
    ]);
  });

  it("without a port of the API close none", () => {
    const without = renderRuleset({ ...facts, apiPort: null });
    expect(lines("own", without).some((line) => line.startsWith("tcp dport"))).toBe(false);
  });

  it("close the machine to others by IPv6 where it forwards for sandboxes only, and let private addresses not out", () => {
    expect(lines("closed6")).toEqual(["drop"]);
    const facts6 = facts.ipv6!;
    expect(block("chain closed6", renderRuleset({ ...facts, ipv6: { ...facts6, isClosed: false } })).trim()).toBe("");
    const masked = (from: string): boolean =>
      lines("from_sandboxes", from).some((line) => /ip6 .*masquerade/.test(line));
    expect(masked(text)).toBe(true);
    expect(masked(renderRuleset({ ...facts, ipv6: { ...facts6, subnet: "2606:2800::/64" } }))).toBe(false);
  });

  it("quote interfaces, which have names of others' choice", () => {
    const closed = renderRuleset({ ...facts, closedInterfaces: ["eth0", "a.b:c", "wg-1"] });
    expect(block("set closed", closed)).toContain('elements = { "eth0", "a.b:c", "wg-1" };');
    expect(block("set closed")).not.toContain("elements");
  });
});

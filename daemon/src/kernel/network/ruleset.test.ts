import { describe, expect, it } from "vitest";
import { clientElements, learnedElements } from "../../core/egress/elements.js";
import { marks, modes } from "../../core/egress/firewall.js";
import { specialRanges } from "../../core/egress/special-ranges.js";
import { policyOf } from "../../core/egress/testing/ask.js";
import { renderRuleset, type RulesetFacts } from "./ruleset.js";

const facts: RulesetFacts = {
  subnet: "10.200.0.0/14",
  gateway: "10.200.0.1",
  ports: { dnsUdp: 1001, dnsTcp: 1002, http: 1003, tls: 1004 },
  apiPort: 7080,
  specialRanges: specialRanges[4],
  connectionLimit: 777,
  closedInterfaces: [],
};
const text = renderRuleset(facts);

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
    const policy = { ...policyOf("a.example", entries.join(" ")) };
    const elements = [
      ...clientElements({ index: 0, address: 1, policy, connectionsPerS: 5 }),
      ...learnedElements(1, 2, [{ all: true, ports: [{ port: 5, protocol: "udp", allowed: true }] }], 9),
    ];
    const names = new Set(elements.map(({ set }) => set));
    expect([...names].filter((name) => /^(net|port)/.test(name))).toHaveLength(66);
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
    expect(maps.at(-1)).toBe(
      `${modes.open} : goto open, ${modes.openNamed} : goto open_named, ${modes.listed} : goto listed, ${modes.listedNamed} : goto listed_named`,
    );
    const values = [...Object.values(marks), ...Object.values(modes), 3, 0];
    expect(new Set(values).size).toBe(values.length);
  });

  it("refuses what nothing has decided on, in every chain that decides", () => {
    for (const chain of ["gateway", "open", "listed", "listed_named", "own", "decide", "resolvers"])
      expect([chain, lines(chain).at(-1)]).toEqual([chain, "goto refuse"]);
    expect(lines("spoof").at(-1)).toBe("drop");
    // what is public was sorted out before
    expect(lines("open_named").at(-1)).toBe("goto permit");
    expect(lines("open_named").indexOf("ip daddr @special goto refuse")).toBeGreaterThan(-1);
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

describe("facts", () => {
  it("are where they belong", () => {
    expect(lines("to_squashd").filter((line) => line.includes("dnat"))).toEqual([
      "ip daddr 10.200.0.1 udp dport 53 dnat ip to 10.200.0.1:1001",
      "ip daddr 10.200.0.1 tcp dport 53 dnat ip to 10.200.0.1:1002",
      "ip saddr @proxied tcp dport 80 dnat ip to 10.200.0.1:1003",
      "ip saddr @proxied tcp dport 443 dnat ip to 10.200.0.1:1004",
    ]);
    expect(lines("decide")).toContain("ip daddr 10.200.0.0/14 goto refuse");
    expect(lines("decide")).toContain("add @tracked { ip saddr ct count over 777 } goto refuse");
    expect(lines("own")[0]).toBe("tcp dport 7080 goto refuse");
  });

  it("without a port of the API close none", () => {
    const without = renderRuleset({ ...facts, apiPort: null });
    expect(lines("own", without).some((line) => line.startsWith("tcp dport"))).toBe(false);
  });

  it("quote interfaces, which have names of others' choice", () => {
    const closed = renderRuleset({ ...facts, closedInterfaces: ["eth0", "a.b:c", "wg-1"] });
    expect(block("set closed", closed)).toContain('elements = { "eth0", "a.b:c", "wg-1" };');
    expect(block("set closed")).not.toContain("elements");
  });
});

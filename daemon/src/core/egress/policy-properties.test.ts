import { isSquashError } from "@squash/sdk/errors";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { EgressPolicy, Protocol } from "./egress-policy.js";
import { parsePolicy } from "./policy.js";
import { context } from "./testing/ask.js";
import { fuzz } from "./testing/fuzz.js";
import * as naive from "./testing/naive-policy.js";

// few of each, so that entries meet each other and the questions
const ports = ["22/tcp", "53/tcp", "53/udp", "443/tcp", "443/udp"];
const names = ["org", "b.org", "a.b.org", "x.a.b.org", "x.b.org", "ab.org", "com", "x.y.a.b.org"];
const addresses = [
  ...["8.8.8.8", "8.8.8.9", "8.8.9.8", "8.9.1.1", "9.1.1.1", "10.0.0.1", "10.1.0.1", "10.1.1.1", "10.199.255.255"],
  ...[
    "10.200.0.0",
    "10.203.255.255",
    "10.204.0.0",
    "11.0.0.1",
    "127.0.0.1",
    "169.254.169.254",
    "172.16.0.1",
    "0.0.0.0",
  ],
  ...["240.0.0.1", "255.255.255.255", "2600::1", "2600::2", "2600:1::1", "2601::1", "::1", "::", "::ffff:808:808"],
  ...["fd00::1", "fe80::1", "2001:db8::1", "64:ff9b::808:808", "9000::1"],
];
const networks = [
  ...["8.8.8.8", "8.8.8.8/32", "8.8.8.0/24", "8.8.0.0/16", "8.0.0.0/8", "8.0.0.0/7", "0.0.0.0/0", "10.0.0.0/8"],
  ...["10.0.0.0/7", "10.1.0.0/16", "10.1.1.1", "10.192.0.0/10", "169.254.169.254", "128.0.0.0/1", "172.16.0.0/12"],
  ...["240.0.0.0/4", "126.0.0.0/7"],
];
const networks6 = [
  ...["2600::1", "2600::1/128", "2600::/32", "2600::/16", "2600::/15", "::/0", "fd00::/8", "fc00::/7", "fe80::1"],
  ...["8000::/1", "::/3", "::/64", "2001:db8::/32", "64:ff9b::/96"],
];

const writtenPort = fc.constantFrom("", "", ":22", ":53", ":53/tcp", ":53/udp", ":443", ":443/udp");
const entry = fc.oneof(
  fc
    .tuple(fc.constantFrom(...names, "*.org", "*.b.org", "*.a.b.org", "*.com"), writtenPort)
    .map(([name, port]) => name + port),
  fc.tuple(fc.constantFrom(...networks), writtenPort).map(([network, port]) => network + port),
  fc.tuple(fc.constantFrom(...networks6), writtenPort).map(([network, port]) => {
    const [address, prefix] = network.split("/");
    return port === "" ? network : `[${address}]${prefix === undefined ? "" : `/${prefix}`}${port}`;
  }),
);
const list = fc.array(entry, { maxLength: 12 });
const spec = fc.record({ allow: list, deny: list });

function at(port: string): [number, Protocol] {
  const [number, protocol] = port.split("/");
  return [Number(number), protocol as Protocol];
}

/** Every decision that a policy can be asked for here, by question. */
function decisionsOf(policy: EgressPolicy): Map<string, unknown> {
  const decisions = new Map<string, unknown>();
  for (const name of names) {
    decisions.set(`lookup ${name}`, policy.lookup(name));
    for (const port of ports) decisions.set(`name ${name} ${port}`, policy.connectByName(name, ...at(port)));
  }
  for (const address of addresses) {
    decisions.set(`answer ${address}`, policy.acceptsAnswer(address));
    for (const port of ports) {
      decisions.set(`address ${address} ${port}`, policy.connectByAddress(address, ...at(port)));
      decisions.set(`resolved ${address} ${port}`, policy.connectResolved(address, ...at(port)));
    }
  }
  return decisions;
}

function allowedBy(policy: EgressPolicy): Set<string> {
  const all = [...decisionsOf(policy)] as [string, { allowed: boolean }][];
  return new Set(all.filter(([, { allowed }]) => allowed).map(([question]) => question));
}

function parse({ allow, deny }: naive.NaivePolicy): EgressPolicy {
  return parsePolicy({ allow, deny }, context);
}

describe("any policy", { timeout: 60_000 }, () => {
  it("decides as the plain rules do", () => {
    fuzz(
      fc.property(spec, (lists) => {
        const policy = parse(lists);
        const wrong: string[] = [];
        const check = (question: string, answer: boolean, wanted: boolean): void => {
          if (answer !== wanted) wrong.push(`${question}: ${answer}`);
        };
        for (const name of names) {
          const wanted = ports.map((port) => naive.connectByName(lists, name, port));
          for (const [index, port] of ports.entries()) {
            check(`name ${name} ${port}`, policy.connectByName(name, ...at(port)).allowed, wanted[index]!);
          }
          // 9 is any port that no entry has
          const any = [...ports, "9/tcp"].some((port) => naive.connectByName(lists, name, port));
          check(`lookup ${name}`, policy.lookup(name).allowed, any);
        }
        for (const address of addresses) {
          for (const port of ports) {
            const asked = [address, ...at(port)] as const;
            const direct = naive.connectByAddress(lists, address, port);
            check(`address ${address} ${port}`, policy.connectByAddress(...asked).allowed, direct);
            const resolved = naive.connectResolved(lists, address, port);
            check(`resolved ${address} ${port}`, policy.connectResolved(...asked).allowed, resolved);
          }
          const any = [...ports, "9/tcp"].some((port) => naive.connectResolved(lists, address, port));
          check(`answer ${address}`, policy.acceptsAnswer(address).allowed, any);
        }
        expect(wrong).toEqual([]);
      }),
      400,
    );
  });

  it("decides alike, for the same reasons, in any order of entries and with any of them twice", () => {
    const shuffled = spec.chain(({ allow, deny }) =>
      fc.record({
        lists: fc.constant({ allow, deny }),
        allow: fc.shuffledSubarray([...allow, ...allow], { minLength: allow.length * 2 }),
        deny: fc.shuffledSubarray([...deny, ...deny], { minLength: deny.length * 2 }),
      }),
    );
    fuzz(
      fc.property(shuffled, ({ lists, allow, deny }) => {
        const [one, other] = [parse(lists), parse({ allow, deny })];
        expect(decisionsOf(other)).toEqual(decisionsOf(one));
        expect(other.addressRules).toEqual(one.addressRules);
        for (const name of names) expect(other.grantOf(name)).toEqual(one.grantOf(name));
      }),
      200,
    );
  });

  it("allows nothing more for one more entry in deny", () => {
    fuzz(
      fc.property(spec, entry, ({ allow, deny }, more) => {
        const before = allowedBy(parse({ allow, deny }));
        const after = allowedBy(parse({ allow, deny: [...deny, more] }));
        expect([...after].filter((question) => !before.has(question))).toEqual([]);
      }),
      300,
    );
  });

  it("denies nothing more for one more entry in a list of what is allowed", () => {
    fuzz(
      fc.property(fc.array(entry, { minLength: 1, maxLength: 12 }), list, entry, (allow, deny, more) => {
        const before = allowedBy(parse({ allow, deny }));
        const after = allowedBy(parse({ allow: [...allow, more], deny }));
        expect([...before].filter((question) => !after.has(question))).toEqual([]);
      }),
      300,
    );
  });

  it("grants a name what it decides about its ports", () => {
    fuzz(
      fc.property(spec, fc.constantFrom(...names), (lists, name) => {
        const policy = parse(lists);
        const { all, ports: single } = policy.grantOf(name);
        for (const [port, protocol] of [...ports, "9/tcp", "80/udp"].map(at)) {
          if (protocol === "tcp" && port === 443) continue;
          const granted = single.find((one) => one.port === port && one.protocol === protocol)?.allowed ?? all;
          expect(granted).toBe(policy.connectByName(name, port, protocol).allowed);
        }
        expect(single.some(({ port, protocol }) => protocol === "tcp" && (port === 80 || port === 443))).toBe(false);
      }),
      300,
    );
  });

  it("has address rules of which the first that matches decides", () => {
    fuzz(
      fc.property(spec, fc.constantFrom(...addresses), fc.constantFrom(...ports), (lists, address, port) => {
        const policy = parse(lists);
        const [number, protocol] = at(port);
        const answer = policy.connectByAddress(address, number, protocol);
        const first = policy.addressRules.find(
          (rule) =>
            (rule.port === null || (rule.port === number && rule.protocol === protocol)) &&
            naive.prefixOf(`${rule.network}/${rule.prefix}`, address) !== null,
        );
        if (answer.rule === "special address" || answer.rule === "sandboxes' own addresses") return;
        expect(answer.rule).toBe(first?.rule ?? `default: ${policy.open ? "everything public" : "nothing else"}`);
      }),
      1000,
    );
  });

  it("is parsed from any text, or refused in our own words", () => {
    const text = fc.oneof(
      fc.string({ unit: "binary", maxLength: 300 }),
      fc.string({
        unit: fc.constantFrom("a", "Z", "0", "9", ".", ":", "/", "*", "[", "]", "_", "-", "ü", "。", "１"),
        maxLength: 30,
      }),
      fc.tuple(entry, fc.string({ maxLength: 3 })).map(([start, end]) => start + end),
      fc.tuple(fc.oneof(fc.ipV4(), fc.ipV6()), fc.nat(140)).map(([address, prefix]) => `${address}/${prefix}`),
    );
    fuzz(
      fc.property(fc.array(text, { maxLength: 2 }), fc.array(text, { maxLength: 2 }), text, (allow, deny, question) => {
        try {
          const policy = parse({ allow, deny });
          policy.lookup(question);
          policy.grantOf(question);
          policy.acceptsAnswer(question);
          policy.connectByName(question, 443, "tcp");
          policy.connectByAddress(question, 443, "tcp");
          policy.connectResolved(question, 443, "tcp");
        } catch (error) {
          if (!isSquashError(error)) throw error;
          expect(error.message).toMatch(
            /^Cannot accept the request: (allow|deny)_net has ".{0,600}", (which|whose|where) /,
          );
        }
      }),
      3000,
    );
  });
});

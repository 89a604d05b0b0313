import { isSquashError } from "@squash/sdk/errors";
import { describe, expect, it } from "vitest";
import { parsePolicy } from "./policy.js";
import { context, policyOf } from "./testing/ask.js";

function refusalOf(list: "allow" | "deny", entries: readonly string[]): string {
  try {
    parsePolicy({ allow: null, deny: [], [list]: entries }, context);
  } catch (error) {
    if (!isSquashError(error)) throw error;
    expect(error.code).toBe("invalid_request");
    expect(error.details["field"]).toBe(`${list}_net`);
    return error.message;
  }
  return "taken";
}

/** The part after the entry. */
function problemOf(list: "allow" | "deny", entry: string): string {
  const message = refusalOf(list, [entry]);
  const start = `Cannot accept the request: ${list}_net has ${JSON.stringify(entry.slice(0, 80))}, `;
  expect(message.slice(0, start.length)).toBe(start);
  return message.slice(start.length);
}

const badCharacter = "which has a character that no entry can have: write a host name, an address or a network alone";
const badPort = 'whose port is not a number from 1 to 65535: write it as ":443", ":443/tcp" or ":443/udp"';
const badIpv6 = 'which is not an IPv6 address: write one as "2001:db8::1", with a port as "[2001:db8::1]:443"';
const badBrackets =
  'which has brackets or colons amiss: write "[2001:db8::1]:443", or a network as "[2001:db8::]/32:443"';
const badName = "which is not a host name: write labels of 1 to 63 letters, digits, - or _ between dots, 253 in all";
const badStar = 'where "*" is not the whole first label: write it as in "*.example.org"';
const badSlash = 'which has a "/" behind a name: write a network as "192.0.2.0/24", a protocol as "example.org:53/udp"';
const unclear =
  'which programs read as different addresses: write four decimal numbers from 0 to 255, as in "10.0.0.1"';
const everything = "which is everything: for everything public leave allow_net out, or write null";
const reserved = 'which is a reserved word: write "none" alone, in allow_net, for a sandbox that reaches nothing';
const url = 'which is a URL: write its host alone, such as "example.org:443"';
const hostBits = (entry: string): string => `which has bits set behind its prefix: write "${entry}"`;
const mapped = (entry: string): string => `which is IPv4 in IPv6: write "${entry}"`;
const prefixTo = (width: number): string => `whose prefix length is not a number from 0 to ${width}`;

describe("an entry that cannot be read", () => {
  it.each([
    ["", "which is empty: write a host name, an address or a network"],
    ["a".repeat(254), "which is too long: an entry has at most 253 characters"],
    [" example.org", badCharacter],
    ["example.org\n", badCharacter],
    ["a,b", badCharacter],
    ["user@example.org", badCharacter],
    ["example.org?", badCharacter],
    ["fe80::1%eth0", badCharacter],
    ["a\0b", badCharacter],
    ["https://example.org", url],
    ["https://example.org/path", url],
    ["example.org:0", badPort],
    ["example.org:65536", badPort],
    ["example.org:443443", badPort],
    ["example.org:", badPort],
    ["example.org:0443", badPort],
    ["example.org:https", badPort],
    ["example.org:*", badPort],
    ["example.org:443/sctp", badPort],
    ["example.org:443/", badPort],
    ["example.org:tcp", badPort],
    ["1.2.3.4:99999", badPort],
    ["[2001:db8::1]:0", badPort],
    ["2001:db8::1::2", badIpv6],
    ["2001:db8:0:0:0:0:0:1:443", badIpv6],
    ["2001:db8::g", badIpv6],
    ["::ffff:010.1.1.1", badIpv6],
    [":::", badIpv6],
    ["example.org:443:80", badIpv6],
    ["1.2.3.4:80:90", badIpv6],
    ["[2001:db8::zz]:443", badIpv6],
    ["[2001:db8::1", badBrackets],
    ["[2001:db8::1]443", badBrackets],
    ["[2001:db8::/32]:443", badBrackets],
    ["[1.2.3.4]:443", badBrackets],
    ["[example.org]", badBrackets],
    ["[]", badBrackets],
    ["2001:db8::/32:443", badBrackets],
    ["2001:db8::1]:443", badIpv6],
    ["1.2.3.4/33", prefixTo(32)],
    ["1.2.3.4/", prefixTo(32)],
    ["1.2.3.4/08", prefixTo(32)],
    ["1.2.3.4/24/tcp", prefixTo(32)],
    ["1.2.3.4/255.255.255.0", prefixTo(32)],
    ["1.2.3.4/tcp", prefixTo(32)],
    ["2001:db8::/129", prefixTo(128)],
    ["2001:db8::/x", prefixTo(128)],
    ["10.1.2.3/8", hostBits("10.0.0.0/8")],
    ["10.1.2.3/8:22", hostBits("10.0.0.0/8:22")],
    ["10.1.2.3/31:22/udp", hostBits("10.1.2.2/31:22/udp")],
    ["1.1.1.1/0", hostBits("0.0.0.0/0")],
    ["2001:db8::1/32", hostBits("2001:db8::/32")],
    ["[2001:db8::1]/32:443", hostBits("[2001:db8::]/32:443")],
    ["::ffff:1.2.3.4", mapped("1.2.3.4")],
    ["::FFFF:102:304", mapped("1.2.3.4")],
    ["[::ffff:1.2.3.4]:443", mapped("1.2.3.4:443")],
    ["::ffff:10.0.0.0/104", mapped("10.0.0.0/8")],
    ["::ffff:0:0/96", mapped("0.0.0.0/0")],
    ["[::ffff:10.1.0.0]/104:53/udp", mapped("10.0.0.0/8:53/udp")],
    ["a..b", badName],
    [".", badName],
    [".org", badName],
    ["example.org..", badName],
    [`${"a".repeat(64)}.org`, badName],
    ["*.", everything],
    ["*..", badName],
    ["*..org", badName],
    ["a]b", badName],
    ["ü[b", badName],
    ["a\ud800.org", badName],
    ["ü\u202e.org", badName],
    ["\u00a0.org", badName],
    ["a．．org", badName],
    ["example：443", badName],
    ["*", everything],
    ["*:443", everything],
    ["*example.org", badStar],
    ["www.*.org", badStar],
    ["*.*.org", badStar],
    ["www.*", badStar],
    ["*.example.*", badStar],
    ["**.org", badStar],
    ["example.org/24", badSlash],
    ["example.org/path", badSlash],
    ["example.org/tcp", badSlash],
    ["example.org/24:443", badSlash],
    ["1.2.3", unclear],
    ["1.2.3:80", unclear],
    ["10/8", unclear],
    ["0x7f.1", unclear],
    ["0X7f000001", unclear],
    ["010.0.0.1", unclear],
    ["1.2.3.4.5", unclear],
    ["300.1.1.1", unclear],
    ["1.2.3.4.", unclear],
    ["2130706433", unclear],
    ["example.1", unclear],
    ["*.1.2.3.4", unclear],
    ["example.0x", unclear],
    ["１２７.0.0.1", unclear],
    ["none:443", reserved],
    ["NONE", reserved],
    ["none.", reserved],
  ])("is refused: %j", (entry, problem) => {
    expect(problemOf("allow", entry)).toBe(problem);
    expect(problemOf("deny", entry)).toBe(problem);
  });

  it.each(["\n", "\u2028", "\u2029"])("is shown in one line, whatever it has: %j", (end) => {
    expect(refusalOf("allow", [`a${end}b`])).toMatch(/^.* has "a\\(n|u202[89])b", which .*$/);
  });

  it("is shown by no more than its start", () => {
    expect(refusalOf("allow", ["/".repeat(100_000)]).length).toBeLessThan(300);
    expect(refusalOf("allow", ["\u0001".repeat(250)])).toContain(`"${"\\u0001".repeat(80)}"`);
  });
});

const loopback = "which is loopback: to a sandbox that is the sandbox itself, which it reaches without an entry";
const multicast = "which is multicast: a sandbox reaches single machines only";
const broadcast = "which is broadcast: a sandbox reaches single machines only";
const nowhere = (all: string): string => `which is the address of no machine: for all public addresses write "${all}"`;
const own = "which is in the sandboxes' own network: their addresses pass from one to another, and none reaches them";

describe("an entry that nothing could open", () => {
  it.each([
    ["127.0.0.1", loopback],
    ["127.0.0.0/8", loopback],
    ["127.1.0.0/16:80", loopback],
    ["::1", loopback],
    ["[::1]:80", loopback],
    ["0.0.0.0", nowhere("0.0.0.0/0")],
    ["0.0.0.0:80", nowhere("0.0.0.0/0")],
    ["::", nowhere("::/0")],
    ["::/128", nowhere("::/0")],
    ["224.0.0.1", multicast],
    ["239.255.255.250:1900/udp", multicast],
    ["224.0.0.0/4", multicast],
    ["ff02::1", multicast],
    ["ff00::/8", multicast],
    ["255.255.255.255", broadcast],
    ["10.200.0.1", own],
    ["10.200.0.0/14", own],
    ["10.203.255.0/24:22", own],
  ])("is refused in allow and harmless in deny: %s", (entry, problem) => {
    expect(problemOf("allow", entry)).toBe(problem);
    expect(refusalOf("deny", [entry])).toBe("taken");
  });

  it.each([
    "126.0.0.0/7",
    "0.0.0.0/8",
    "::/127",
    "10.0.0.0/8",
    "10.200.0.0/13",
    "0.0.0.0/0",
    "fe00::/7",
    "240.0.0.0/4",
  ])("may be within one that is taken: %s", (entry) => {
    expect(refusalOf("allow", [entry])).toBe("taken");
  });
});

describe("an entry", () => {
  it.each([
    "a",
    "localhost",
    "example.org",
    "EXAMPLE.org.:443",
    "a-b_c.example.org:1/TCP",
    "-a-.example.org",
    "xn--bcher-kva.example",
    "bücher.example:443/udp",
    "*.bücher.example",
    "日本。example",
    "*.org",
    "*.none",
    "none.example",
    "1.example.org",
    "1.2.3.4",
    "1.2.3.4:65535",
    "1.2.3.4/32:1/udp",
    "0.0.0.0/0",
    "::/0",
    "[::]/0:443",
    "2001:db8::1",
    "[2001:db8::1]",
    "[2001:DB8::1]:443/udp",
    "[2001:db8::]/32",
    "2001:db8:0:0:0:0:0:0/32",
    "64:ff9b::1.2.3.4",
    `${"a.".repeat(126)}a`,
  ])("can be %s", (entry) => {
    expect(refusalOf("allow", [entry])).toBe("taken");
    expect(refusalOf("deny", [entry])).toBe("taken");
  });
});

describe("the lists", () => {
  it("have at most 256 entries each", () => {
    const most = Array.from({ length: 256 }, (_, at) => `a${at}.example.org`);
    expect(refusalOf("allow", most)).toBe("taken");
    expect(refusalOf("deny", most)).toBe("taken");
    const message = (list: string): string => `Cannot accept the request: ${list} must have at most 256 entries`;
    expect(refusalOf("allow", [...most, "a"])).toBe(message("allow_net"));
    expect(refusalOf("deny", [...most, "a"])).toBe(message("deny_net"));
  });

  it('have "none" alone and in allow', () => {
    expect(policyOf("none").silent).toBe(true);
    expect(policyOf("none none").silent).toBe(true);
    expect(policyOf("none", "example.org").silent).toBe(true);
    expect(refusalOf("allow", ["none", "example.org"])).toContain(`allow_net has "none", ${reserved}`);
    expect(refusalOf("allow", ["example.org", "none"])).toContain(`allow_net has "none", ${reserved}`);
    expect(problemOf("deny", "none")).toBe(reserved);
  });

  it("are checked even where they decide nothing", () => {
    expect(() => policyOf("none", "1.2.3")).toThrow(unclear);
  });
});

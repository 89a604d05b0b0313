import { describe, expect, it } from "vitest";
import { ask, policyOf } from "./testing/ask.js";

const everything = "yes: default: everything public";
const nothing = "no: default: nothing else";
const notAName = "no: not a name";

describe("a policy, asked for a name", () => {
  // allow, deny, question, answer
  it.each([
    // open
    ["", "", "name example.org 443", everything],
    ["", "", "lookup example.org", everything],
    ["", "example.org", "name example.org 443", "no: deny example.org"],
    ["", "example.org", "name www.example.org 443", everything],
    ["", "example.org", "lookup example.org", "no: deny example.org"],
    ["", "*.example.org", "name www.example.org 443", "no: deny *.example.org"],
    ["", "*.example.org", "name a.b.example.org 443", "no: deny *.example.org"],
    ["", "*.example.org", "name example.org 443", everything],
    ["", "example.org:25", "name example.org 25", "no: deny example.org:25"],
    ["", "example.org:25", "name example.org 443", everything],
    ["", "example.org:25", "lookup example.org", everything],
    ["", "8.8.8.8", "name dns.google 443", everything],
    // a list
    ["example.org", "", "name example.org 443", "yes: allow example.org"],
    ["example.org", "", "name example.org 443/udp", "yes: allow example.org"],
    ["example.org", "", "name www.example.org 443", nothing],
    ["example.org", "", "name notexample.org 443", nothing],
    ["example.org", "", "name org 443", nothing],
    ["example.org", "", "lookup example.org", "yes: allow example.org"],
    ["example.org", "", "lookup www.example.org", nothing],
    ["example.org:443", "", "name example.org 443", "yes: allow example.org:443"],
    ["example.org:443", "", "name example.org 443/udp", nothing],
    ["example.org:443", "", "name example.org 80", nothing],
    ["example.org:443/udp", "", "name example.org 443/udp", "yes: allow example.org:443/udp"],
    ["example.org:443", "", "lookup example.org", "yes: allow example.org:443"],
    ["*.example.org", "", "name www.example.org 80", "yes: allow *.example.org"],
    ["*.example.org", "", "name a.b.c.example.org 80", "yes: allow *.example.org"],
    ["*.example.org", "", "name example.org 80", nothing],
    ["*.example.org", "", "name xexample.org 80", nothing],
    ["*.example.org", "", "lookup www.example.org", "wildcard: allow *.example.org"],
    ["*.example.org:443", "", "lookup www.example.org", "wildcard: allow *.example.org:443"],
    ["*.org", "", "name example.org 80", "yes: allow *.org"],
    ["8.8.8.8", "", "name dns.google 443", nothing],
    ["0.0.0.0/0 ::/0", "", "lookup dns.google", nothing],
    // the exact name, then the longer wildcard, then the port, then deny
    ["example.org", "example.org", "name example.org 443", "no: deny example.org"],
    ["Example.org.", "example.ORG", "name example.org 443", "no: deny example.ORG"],
    ["*.example.org", "*.example.org", "name a.example.org 443", "no: deny *.example.org"],
    ["*.example.org", "www.example.org", "name www.example.org 443", "no: deny www.example.org"],
    ["*.example.org", "www.example.org", "name a.www.example.org 443", "yes: allow *.example.org"],
    ["www.example.org", "*.example.org", "name www.example.org 443", "yes: allow www.example.org"],
    ["www.example.org", "*.example.org", "name ftp.example.org 443", "no: deny *.example.org"],
    ["*.b.org", "*.a.b.org", "name x.a.b.org 443", "no: deny *.a.b.org"],
    ["*.b.org", "*.a.b.org", "name a.b.org 443", "yes: allow *.b.org"],
    ["*.a.b.org", "*.b.org", "name x.y.a.b.org 443", "yes: allow *.a.b.org"],
    ["*.org *.a.b.org", "*.b.org", "name x.a.b.org 443", "yes: allow *.a.b.org"],
    ["*.org *.a.b.org", "*.b.org", "name x.b.org 443", "no: deny *.b.org"],
    ["*.org *.a.b.org", "*.b.org", "name b.org 443", "yes: allow *.org"],
    ["example.org:443", "example.org", "name example.org 443", "yes: allow example.org:443"],
    ["example.org:443", "example.org", "name example.org 80", "no: deny example.org"],
    ["example.org", "example.org:443", "name example.org 443", "no: deny example.org:443"],
    ["example.org", "example.org:443", "name example.org 80", "yes: allow example.org"],
    ["www.example.org", "*.example.org:443", "name www.example.org 443", "yes: allow www.example.org"],
    ["*.example.org:443", "www.example.org", "name www.example.org 443", "no: deny www.example.org"],
    ["*.example.org", "www.example.org:25", "name www.example.org 443", "yes: allow *.example.org"],
    ["*.example.org", "www.example.org:25", "lookup www.example.org", "wildcard: allow *.example.org"],
    ["*.example.org www.example.org", "", "lookup www.example.org", "yes: allow www.example.org"],
    ["*.example.org www.example.org:9", "", "lookup www.example.org", "yes: allow www.example.org:9"],
    ["example.org:443", "example.org", "lookup example.org", "yes: allow example.org:443"],
    ["*.example.org:443", "www.example.org:443", "lookup www.example.org", nothing],
    ["*.example.org:443", "www.example.org", "lookup www.example.org", "no: deny www.example.org"],
    // one name, many forms
    ["example.org", "", "name EXAMPLE.Org. 443", "yes: allow example.org"],
    ["EXAMPLE.org.", "", "name example.org 443", "yes: allow EXAMPLE.org."],
    ["*.Example.Org.", "", "name a.example.org. 443", "yes: allow *.Example.Org."],
    ["bücher.example", "", "name xn--bcher-kva.example 443", "yes: allow bücher.example"],
    ["xn--bcher-kva.example", "", "lookup BÜCHER.example", "yes: allow xn--bcher-kva.example"],
    ["*.bücher.example", "", "lookup a.bücher。example", "wildcard: allow *.bücher.example"],
    // names that are not host names, but are asked for; and what is no name
    ["*.example.org", "", "lookup _dmarc.example.org", "wildcard: allow *.example.org"],
    ["", "", "lookup _443._tcp.example.org", everything],
    ["_sip._tcp.example.org", "", "lookup _sip._tcp.example.org", "yes: allow _sip._tcp.example.org"],
    ["", "", "lookup 4.3.2.1.in-addr.arpa", everything],
    ["", "", "lookup ", notAName],
    ["", "", "lookup .", notAName],
    ["", "", "lookup .example.org", notAName],
    ["", "", "lookup a..example.org", notAName],
    ["", "", "lookup example.org..", notAName],
    ["", "", "lookup *.example.org", notAName],
    ["", "", "lookup a\0.example.org", notAName],
    ["", "", "lookup a\n.example.org", notAName],
    ["", "", "lookup a\u0085.example.org", notAName],
    ["", "", "lookup a/b.example.org", notAName],
    ["", "", "lookup ü/b.example.org", notAName],
    ["", "", "lookup ü%2eorg", notAName],
    ["", "", `lookup ${"a".repeat(63)}.org`, everything],
    ["", "", `lookup ${"a".repeat(64)}.org`, notAName],
    ["", "", `lookup ${"a.".repeat(126)}a`, everything],
    ["", "", `lookup ${"a.".repeat(126)}a.`, everything],
    ["", "", `lookup ${"a.".repeat(127)}a`, notAName],
    ["", "", `lookup ${"ü".repeat(60)}.org`, notAName],
    ["", "", "lookup 8.8.8.8", notAName],
    ["", "", "lookup 2600::1", notAName],
    ["8.8.8.8", "", "name 8.8.8.8 443", notAName],
    ["", "", "name 0x7f.1 443", notAName],
    ["", "", "name 2130706433 443", notAName],
    ["", "", "name example.0X7F 443", notAName],
    ["", "", "name １２７.0.0.1 443", notAName],
    ["", "", "name ①②⑦.0.0.1 443", notAName],
    ["", "", "name [::1] 443", notAName],
    ["", "", "name example.org 0", "no: not a port"],
    ["", "", "name example.org 65536", "no: not a port"],
    ["", "", "name example.org NaN", "no: not a port"],
    // silent
    ["none", "", "lookup example.org", "no: none"],
    ["none", "example.org", "name example.org 443", "no: none"],
  ])("allow %j, deny %j: %j -> %s", (allow, deny, question, answer) => {
    expect(ask(policyOf(allow, deny), question)).toBe(answer);
  });
});

describe("grantOf()", () => {
  const tcp = (port: number, allowed: boolean): object => ({ port, protocol: "tcp", allowed });
  const udp = (port: number, allowed: boolean): object => ({ port, protocol: "udp", allowed });

  it.each([
    ["", "", "example.org", true, []],
    ["", "example.org", "example.org", false, []],
    ["", "example.org:25 *.org:22", "example.org", true, [tcp(22, false), tcp(25, false)]],
    ["example.org", "", "example.org", true, []],
    ["example.org", "", "other.org", false, []],
    ["example.org:443 example.org:80", "", "example.org", false, []],
    ["example.org:443/udp", "", "example.org", false, [udp(443, true)]],
    [
      "example.org:53 example.org:53/udp example.org:22",
      "",
      "example.org",
      false,
      [tcp(22, true), tcp(53, true), udp(53, true)],
    ],
    ["example.org:22", "example.org", "example.org", false, [tcp(22, true)]],
    ["example.org", "example.org:22", "example.org", true, [tcp(22, false)]],
    ["example.org:22 *.org", "example.org:22", "example.org", true, [tcp(22, false)]],
    ["example.org:22 *.org:23", "*.org", "example.org", false, [tcp(22, true), tcp(23, true)]],
    ["example.org", "*.org:25", "example.org", true, []],
    ["8.8.8.8", "", "8.8.8.8", false, []],
    ["", "", "a..b", false, []],
    ["none", "", "example.org", false, []],
  ])("allow %j, deny %j: %s", (allow, deny, name, all, ports) => {
    expect(policyOf(allow, deny).grantOf(name)).toEqual({ all, ports });
  });
});

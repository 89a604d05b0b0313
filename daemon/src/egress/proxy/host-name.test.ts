import { expect, it } from "vitest";
import { parseHostName } from "./host-name.js";

it.each([
  ["example.org", "example.org"],
  ["Example.ORG.", "example.org"],
  ["localhost", "localhost"],
  ["_dmarc.a-b.example", "_dmarc.a-b.example"],
  ["xn--mnchen-3ya.de", "xn--mnchen-3ya.de"],
  ["1.2.3.4.in-addr.arpa", "1.2.3.4.in-addr.arpa"],
])("parseHostName() takes %j", (text, name) => expect(parseHostName(text)).toBe(name));

it.each([
  ...["", ".", "..", "a..b", ".a", "a b", "a\t", "a\0", "a/b", "a:80", "user@a", "[::1]", "::1", "*.a", "a,b", "a%2e"],
  ...[
    "1.2.3.4",
    "1.2.3.4.",
    "127.1",
    "0177.1",
    "0x7f.0.0.1",
    "2130706433",
    "a.0x1f",
    "a.123",
    "\u212Aa.org",
    "m\u00fcnchen.de",
  ],
  ...["-a", "a-", "a.-b", "a".repeat(64), `${"a.".repeat(127)}b`],
])("parseHostName() refuses %j", (text) => expect(parseHostName(text)).toBeNull());

import { describe, expect, it } from "vitest";
import { parsePolicy } from "../../core/egress/policy.js";
import { connectTo, readAuthority, writeAuthority } from "./host.js";

const read = (text: string): string | null => {
  const host = readAuthority(text, 80, { addresses: true });
  return host === null ? null : writeAuthority(host, 80);
};

describe("a host that is asked for", () => {
  it.each([
    ["a.test", "a.test"],
    ["A.test.:080", "a.test"],
    ["a.test:8080", "a.test:8080"],
    ["192.0.2.7", "192.0.2.7"],
    ["192.0.2.7:8080", "192.0.2.7:8080"],
    ["[2001:DB8:0::7]", "[2001:db8::7]"],
    ["[2001:db8::7]:8080", "[2001:db8::7]:8080"],
    ["[::ffff:192.0.2.7]", "[::ffff:c000:207]"],
  ])("%s is %s", (text, written) => expect(read(text)).toBe(written));

  it.each([
    ...["", ":80", "a.test:", "a.test:0", "a.test:65536", "a.test:+80", "u@a.test", "a b", "[a.test]", "[192.0.2.7]"],
    ...["2001:db8::7", "[2001:db8::7", "2001:db8::7]", "[2001:db8::7]80", "[2001:db8::7%eth0]", "[::1]]", "[]"],
    ...["192.0.2", "192.0.2.07", "0x7f.0.0.1", "3221225985", "192.0.2.7.", "[::192.0.2.07]"],
  ])("is not %j", (text) => expect(read(text)).toBeNull());

  it("is no address where only a name will do", () => {
    expect(readAuthority("192.0.2.7", 80, { addresses: false })).toBeNull();
    expect(readAuthority("[2001:db8::7]", 80, { addresses: false })).toBeNull();
  });
});

describe("a connection by address through the proxy", () => {
  const allowed = (allow: readonly string[] | null, deny: readonly string[], name: string, port: number): boolean =>
    connectTo(parsePolicy({ allow, deny }, { subnets: [] }), { name, port }).allowed;

  it.each<[string, boolean, readonly string[] | null, readonly string[], string, number]>([
    ["public, where all is open", true, null, [], "198.41.0.4", 443],
    ["of IPv6, too", true, null, [], "2a00::7", 443],
    ["private", false, null, [], "10.0.0.1", 443],
    ["of the link", false, null, [], "169.254.169.254", 80],
    ["of loopback", false, null, [], "127.0.0.1", 8080],
    ["of loopback, written as IPv6", false, null, [], "::ffff:7f00:1", 8080],
    ["denied", false, null, ["198.41.0.0/16"], "198.41.0.4", 443],
    ["that a list does not have", false, ["a.test"], [], "198.41.0.4", 443],
    ["that a list has", true, ["a.test", "198.41.0.4"], [], "198.41.0.4", 443],
    ["that a list has for another port", false, ["198.41.0.4:22"], [], "198.41.0.4", 443],
    ["that a list has, though it is private", true, ["10.0.0.1"], [], "10.0.0.1", 80],
    ["on 443, where a name is denied, which it may have", false, null, ["evil.test"], "198.41.0.4", 443],
    ["on 80, where a name is denied", false, null, ["evil.test"], "198.41.0.4", 80],
    ["on another port, where a name is denied", true, null, ["evil.test"], "198.41.0.4", 8443],
    ["where nothing is allowed", false, ["none"], [], "198.41.0.4", 443],
  ])("is decided as the firewall does: an address %s: %s", (_, expected, allow, deny, name, port) =>
    expect(allowed(allow, deny, name, port)).toBe(expected),
  );
});

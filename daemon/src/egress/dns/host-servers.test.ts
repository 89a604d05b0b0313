import { mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, it } from "vitest";
import { HostServers, parseServers } from "./host-servers.js";

const folder = mkdtempSync(join(tmpdir(), "host-servers-test-"));
afterAll(() => rmSync(folder, { recursive: true }));

it("reads what resolv.conf may hold", () => {
  const text = [
    "# nameserver 192.0.2.1",
    "; nameserver 192.0.2.2",
    "search example.org",
    " nameserver 192.0.2.3",
    "nameserverx 192.0.2.4",
    "nameserver\t127.0.0.53 # stub",
    "nameserver fe80::1%eth0",
    "nameserver 2001:db8::1;x",
    "nameserver dns.example.org",
    "nameserver",
    "nameserver 192.0.2.5\r",
    "nameserver 192.0.2.6",
    "options edns0",
  ].join("\n");
  expect(parseServers(text)).toEqual(["127.0.0.53", "2001:db8::1", "192.0.2.5"]);
});

it("follows the file, however it changes, a second later at most", async () => {
  let now = 0;
  const path = join(folder, "resolv.conf");
  const servers = new HostServers(path, () => now);
  expect(await servers.current()).toEqual([]);
  writeFileSync(path, "nameserver 192.0.2.1\n");
  now = 999;
  expect(await servers.current()).toEqual([]);
  now = 1000;
  const first = await servers.current();
  expect(first).toEqual(["192.0.2.1"]);
  writeFileSync(path, "# the same\nnameserver 192.0.2.1\n");
  now = 2000;
  expect(await servers.current()).toBe(first);
  writeFileSync(`${path}.new`, "nameserver 192.0.2.2\n");
  renameSync(`${path}.new`, path);
  now = 3000;
  expect(await servers.current()).toEqual(["192.0.2.2"]);
  rmSync(path);
  now = 4000;
  expect(await servers.current()).toEqual([]);
  writeFileSync(path, "nameserver 192.0.2.2\n");
  now = 5000;
  expect(await servers.current()).toEqual(["192.0.2.2"]);
  writeFileSync(path, "#".repeat(70_000) + "\nnameserver 192.0.2.2\n");
  now = 6000;
  expect(await servers.current()).toEqual([]);
});

it("reads once for all that ask at the same time", async () => {
  const path = join(folder, "resolv.conf");
  writeFileSync(path, "nameserver 192.0.2.1\n");
  const servers = new HostServers(path, () => 0);
  const [first, second] = await Promise.all([servers.current(), servers.current()]);
  expect(first).toEqual(["192.0.2.1"]);
  expect(second).toBe(first);
});

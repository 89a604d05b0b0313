import { describe, expect, it } from "vitest";

import { parseAddress } from "./address.js";

describe("parseAddress()", () => {
  it("reads an http address", () => {
    expect(parseAddress("http://127.0.0.1:8080")).toMatchObject({
      kind: "tcp",
      host: "127.0.0.1",
      port: 8080,
      prefix: "",
    });
  });

  it("knows the default ports", () => {
    expect(parseAddress("http://box")).toMatchObject({ isSecure: false, port: 80 });
    expect(parseAddress("https://box")).toMatchObject({ isSecure: true, port: 443 });
  });

  it("takes the brackets off an IPv6 address", () => {
    expect(parseAddress("http://[::1]:9")).toMatchObject({ host: "::1", port: 9 });
  });

  it("keeps a path in front of the routes, without its last slash", () => {
    expect(parseAddress("https://box/squash/")).toMatchObject({ prefix: "/squash" });
  });

  it.each(["unix:/run/a.sock", "unix:///run/a.sock"])("reads %s", (text) => {
    expect(parseAddress(text)).toEqual({ kind: "unix", text, socketPath: "/run/a.sock" });
  });

  it.each([
    "",
    "localhost:8080",
    "ftp://box",
    "unix:",
    "unix:a.sock",
    "unix://a.sock",
    "http://box/?a",
    "http://box/#a",
  ])('refuses "%s"', (text) => {
    expect(() => parseAddress(text)).toThrow(expect.objectContaining({ code: "invalid_request" }));
  });

  it("does not repeat a password that an address contains", () => {
    expect(() => parseAddress("http://me:hunter2@box")).toThrow(/credentials/);
    expect(() => parseAddress("http://me:hunter2@box")).not.toThrow(/hunter2/);
  });
});

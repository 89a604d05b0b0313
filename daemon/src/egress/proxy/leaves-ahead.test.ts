import { setImmediate } from "node:timers/promises";
import { createSecureContext } from "node:tls";
import { describe, expect, it } from "vitest";
import { Interceptor } from "./interceptor.js";
import { defaultTimings } from "./timings.js";

const authority = { fingerprint: "f", certificatePem: "", keyPem: "" };

/** With the hosts that certificates were made of, in order. */
function interceptor(): { readonly made: string[]; readonly intercepting: Interceptor } {
  const made: string[] = [];
  const issuer = {
    has: (host: string) => made.includes(host),
    contextFor: (host: string) => {
      made.push(host);
      return createSecureContext();
    },
  };
  const unused = { serve: () => undefined };
  const options = { timings: defaultTimings, http: unused, http2: unused, issuer: () => issuer };
  return { made, intercepting: new Interceptor(options) };
}

const turns = async (count: number): Promise<void> => {
  for (let turn = 0; turn < count; turn += 1) await setImmediate();
};

describe("certificates of the hosts of secrets", () => {
  it("are made ahead, each in a turn of its own, and once for all sandboxes", async () => {
    const { made, intercepting } = interceptor();
    intercepting.prepare(authority, ["a.test", "b.test"]);
    intercepting.prepare(authority, ["b.test", "c.test"]);
    expect(made).toEqual([]);
    await turns(1);
    expect(made).toEqual(["a.test"]);
    await turns(5);
    expect(made).toEqual(["a.test", "b.test", "c.test"]);
    intercepting.prepare(authority, ["c.test", "d.test"]);
    await turns(3);
    expect(made).toEqual(["a.test", "b.test", "c.test", "d.test"]);
  });

  it("wait in bounded number, and are not made after the end", async () => {
    const { made, intercepting } = interceptor();
    const hosts = Array.from({ length: 300 }, (_, index) => `h${index}.test`);
    intercepting.prepare(authority, hosts.slice(0, 200));
    intercepting.prepare(authority, hosts.slice(200));
    await turns(320);
    expect(made).toEqual(hosts.slice(0, 256));
    intercepting.prepare(authority, ["late.test", "later.test"]);
    await turns(1);
    intercepting.close();
    await turns(3);
    expect(made.at(-1)).toBe("late.test");
  });
});

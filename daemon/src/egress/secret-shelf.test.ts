import { describe, expect, it } from "vitest";
import type { Secret } from "../core/secrets/secret.js";
import { SecretShelf } from "./secret-shelf.js";

const secret = (name: string, value = "v"): Secret => ({ name, value }) as Secret;
const put = (shelf: SecretShelf, ...secrets: Secret[]): void =>
  shelf.replace({ secrets, authorities: [{ fingerprint: "f", certificatePem: "c", keyPem: "k" }] });

describe("SecretShelf", () => {
  it("gives what was granted and is there, one list for all that have the same", () => {
    const shelf = new SecretShelf();
    put(shelf, secret("A"), secret("B"));
    expect(shelf.granted(["A", "C"])).toEqual([secret("A")]);
    expect(shelf.granted(["A", "B"])).toBe(shelf.granted(["A", "B"]));
    expect(shelf.granted([])).toEqual([]);
    expect(shelf.authority("f")?.keyPem).toBe("k");
    expect([shelf.authority("g"), shelf.authority(null)]).toEqual([null, null]);
  });

  it("keeps an authority as it is, with what it has issued, until its key is another one", () => {
    const shelf = new SecretShelf();
    put(shelf, secret("A"));
    const before = shelf.authority("f");
    put(shelf, secret("A", "new"));
    expect(shelf.authority("f")).toBe(before);
    shelf.replace({ secrets: [], authorities: [{ fingerprint: "f", certificatePem: "c", keyPem: "another" }] });
    expect(shelf.authority("f")?.keyPem).toBe("another");
  });

  it("keeps a list as it is until something in it changes", () => {
    const shelf = new SecretShelf();
    put(shelf, secret("A"), secret("B"));
    const [a, both] = [shelf.granted(["A"]), shelf.granted(["A", "B"])];
    put(shelf, secret("A"), secret("B", "new"));
    expect(shelf.granted(["A"])).toBe(a);
    expect(shelf.granted(["A", "B"])).not.toBe(both);
    expect(shelf.granted(["A", "B"])).toEqual([secret("A"), secret("B", "new")]);
    shelf.keepOnly([["A", "B"]]);
    expect(shelf.granted(["A"])).not.toBe(a);
  });
});

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { fuzz } from "../../core/egress/testing/fuzz.js";
import { Needle, Replacer, replaceAll, type Pattern } from "./replacer.js";
import { naive } from "./testing/naive.js";
import { cutAt } from "./testing/pieces.js";
import { jsonView, percentView, plainView } from "./views.js";

function pattern(find: string, put: string | null): Pattern {
  return { needle: new Needle(Buffer.from(find)), put: put === null ? null : Buffer.from(put) };
}

function replaced(text: string, patterns: readonly Pattern[], cuts: readonly number[] = []): string {
  const replacer = new Replacer(patterns);
  const pieces = cutAt(Buffer.from(text), cuts).flatMap((piece) => replacer.push(piece));
  return Buffer.concat([...pieces, ...replacer.end()]).toString();
}

describe("Replacer", () => {
  it("puts the longest of the patterns that begin at one place, from left to right", () => {
    const patterns = [pattern("abc", "1"), pattern("abcdef", "2"), pattern("cd", "3")];
    expect(replaced("abcdef abcde cd", patterns)).toBe("2 1de 3");
    expect(replaced("abcdef abcde cd", patterns, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14])).toBe("2 1de 3");
  });

  it("never looks into what it put in", () => {
    expect(replaced("AB", [pattern("A", "BA"), pattern("B", "A")])).toBe("BAA");
  });

  it("leaves what is to stay, also where a shorter pattern is in it", () => {
    expect(replaced("token-long token", [pattern("token", "x"), pattern("token-long", null)])).toBe("token-long x");
  });

  it("holds back no more than what may be the beginning of a pattern", () => {
    const replacer = new Replacer([pattern("secret", "x"), pattern("etc", "y")]);
    expect(Buffer.concat(replacer.push(Buffer.from("data: one\n\n"))).toString()).toBe("data: one\n\n");
    expect(replacer.held).toBe(0);
    expect(Buffer.concat(replacer.push(Buffer.from("a sec"))).toString()).toBe("a ");
    expect(replacer.held).toBe(3);
    expect(Buffer.concat(replacer.push(Buffer.from("re"))).toString()).toBe("");
    expect(Buffer.concat(replacer.push(Buffer.from("t"))).toString()).toBe("x");
    expect(replacer.held).toBe(0);
    expect(Buffer.concat(replacer.push(Buffer.from("e"))).toString()).toBe("");
    expect(Buffer.concat(replacer.end()).toString()).toBe("e");
  });

  it("ends with what a pattern throws, before anything after it is passed on", () => {
    const stop = { ...pattern("stop", null), found: (): never => { throw new Error("stopped") } }; // prettier-ignore
    expect(() => new Replacer([stop]).push(Buffer.from("before stop after"))).toThrow("stopped");
  });

  it("does what replacing in the whole does, wherever the bytes are cut", () => {
    const text = fc.string({ unit: fc.constantFrom("a", "b", "c"), maxLength: 60 });
    const short = fc.string({ unit: fc.constantFrom("a", "b", "c"), minLength: 1, maxLength: 6 });
    const patterns = fc.uniqueArray(fc.tuple(short, fc.option(short)), {
      minLength: 1,
      maxLength: 4,
      selector: ([find]) => find,
    });
    fuzz(
      fc.property(text, patterns, fc.array(fc.nat(60)), (whole, found, cuts) => {
        const all = found.map(([find, put]) => pattern(find, put));
        expect(replaced(whole, all, cuts)).toBe(naive(Buffer.from(whole), all, "plain").toString());
      }),
      3_000,
    );
  });

  it.each(["json", "percent"] as const)("does so among escapes of %s, too", (kind) => {
    const view = { json: jsonView, percent: percentView }[kind];
    const escapes = {
      json: [
        "a",
        "b",
        "/",
        "\\/",
        "\\u0061",
        "\\u0062",
        "\\u002F",
        "\\\\",
        "\\n",
        "\\u00e9",
        "\\",
        "\\u",
        "\\u00",
        "\\ux",
        "n",
        "u",
      ],
      percent: ["a", "b", "/", "%61", "%62", "%2f", "%2F", "%25", "%", "%6", "%zz", "6", "1", "%ff"],
    }[kind];
    const text = fc.array(fc.constantFrom(...escapes), { maxLength: 30 }).map((parts) => parts.join(""));
    const short = fc.string({ unit: fc.constantFrom("a", "b", "/", "n", "u", "6"), minLength: 1, maxLength: 5 });
    const patterns = fc.uniqueArray(fc.tuple(short, fc.option(short)), {
      minLength: 1,
      maxLength: 3,
      selector: ([find]) => find,
    });
    fuzz(
      fc.property(text, patterns, fc.array(fc.nat(120)), (whole, found, cuts) => {
        const all = found.map(([find, put]) => pattern(find, put));
        const replacer = new Replacer(all, view);
        const pieces = cutAt(Buffer.from(whole), cuts).flatMap((piece) => replacer.push(piece));
        const result = Buffer.concat([...pieces, ...replacer.end()]).toString();
        expect(result).toBe(naive(Buffer.from(whole), all, kind).toString());
      }),
      5_000,
    );
  });

  it("takes time in proportion to the bytes, also of patterns that are like themselves", () => {
    const bytes = Buffer.alloc(4 * 1024 * 1024, "a");
    const patterns = [pattern(`${"a".repeat(60_000)}b`, "x"), pattern(`${"a".repeat(4_000)}c`, "y")];
    const start = performance.now();
    const replacer = new Replacer(patterns);
    for (let at = 0; at < bytes.length; at += 65_536) replacer.push(bytes.subarray(at, at + 65_536));
    expect(performance.now() - start).toBeLessThan(5_000);
    expect(replacer.held).toBe(60_000);
  });
});

describe("replaceAll()", () => {
  it("replaces in bytes that are there as a whole", () => {
    expect(replaceAll(Buffer.from("an end: ab"), [pattern("ab", "x"), pattern("abc", "y")]).toString()).toBe(
      "an end: x",
    );
    expect(replaceAll(Buffer.from("%41b"), [pattern("Ab", "x")], percentView).toString()).toBe("x");
    expect(replaceAll(Buffer.from("%41b"), [pattern("Ab", "x")], plainView).toString()).toBe("%41b");
  });
});

import { describe, expect, it } from "vitest";
import { execDefaults, mergeDefaults, type ImageDefaults } from "./image-defaults.js";

const none: ImageDefaults = { env: {}, workdir: "", user: "", entrypoint: [], cmd: [] };
const of = (defaults: Partial<ImageDefaults>): { defaults: ImageDefaults } => ({ defaults: { ...none, ...defaults } });

describe("execDefaults()", () => {
  it("leaves a request as it is where no module says anything", () => {
    for (const manifests of [[], [{}], [of({}), {}]])
      expect(execDefaults(manifests, { cmd: "x" })).toEqual({ cmd: "x" });
  });

  it("takes the topmost module's word, for each variable by itself", () => {
    const stack = [
      of({ env: { A: "top" }, user: "" }),
      {},
      of({ env: { A: "low", B: "low" }, workdir: "/w", user: "7" }),
    ];
    expect(execDefaults(stack, { cmd: ["x"], stdin: "in", timeout: 3 })).toEqual({
      cmd: ["x"],
      stdin: "in",
      timeout: 3,
      env: { A: "top", B: "low" },
      workdir: "/w",
      user: "7",
    });
  });

  it("gives way to what is asked for, also where that is empty or 0", () => {
    const stack = [of({ env: { A: "image", B: "image" }, workdir: "/w", user: "nobody" })];
    expect(execDefaults(stack, { cmd: "x", env: { A: "" }, workdir: "/", user: 0 })).toEqual({
      cmd: "x",
      env: { A: "", B: "image" },
      workdir: "/",
      user: 0,
    });
  });

  it("takes a variable of any name as one, and changes nothing that it was given", () => {
    const stack = [of({ env: Object.fromEntries([["__proto__", "x"]]) })];
    const request = Object.freeze({ cmd: "x", env: Object.freeze({ C: "1" }) });
    const { env } = execDefaults(stack, request);
    expect(Object.entries(env!)).toEqual([
      ["__proto__", "x"],
      ["C", "1"],
    ]);
  });
});

describe("mergeDefaults()", () => {
  it("takes entrypoint and arguments together, from the topmost that has either", () => {
    const stack = [of({ user: "a" }), of({ cmd: ["top"] }), of({ entrypoint: ["/low"], cmd: ["low"] })];
    expect(mergeDefaults(stack)).toEqual({ ...none, user: "a", cmd: ["top"] });
    expect(mergeDefaults([{}, {}])).toBeUndefined();
  });

  it("keeps no more of the environment than fits beside a request's", () => {
    const many = Object.fromEntries(Array.from({ length: 50 }, (_, index) => [`A${index}`, ""]));
    const more = Object.fromEntries(Array.from({ length: 50 }, (_, index) => [`B${index}`, ""]));
    const kept = Object.keys(mergeDefaults([of({ env: many }), of({ env: more })])!.env);
    expect([kept.length, kept.at(-1)]).toEqual([64, "B13"]);
    expect(mergeDefaults([of({ env: { A: "x", B: "y".repeat(40_000) } })])?.env).toEqual({ A: "x" });
  });
});

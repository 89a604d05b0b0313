import { describe, expect, it } from "vitest";
import { doubles, forks, violations, type ChaosEvent } from "../support/s3/chaos-history.js";

const lines = (...seqs: readonly number[]): string[] => seqs.map((seq) => `${seq} d${seq}`);
const write = (seq: number, id = "a"): ChaosEvent => ({ kind: "write", id, seq, digest: `d${seq}` });
const saved = (...seqs: readonly number[]): ChaosEvent => ({
  kind: "saved",
  id: "a",
  how: "destroy",
  lines: lines(...seqs),
});
const seen = (incarnation: number, ...seqs: readonly number[]): ChaosEvent => ({
  kind: "seen",
  id: "a",
  incarnation,
  lines: lines(...seqs),
});
const three = [write(1), write(2), write(3)];

describe("a history of sandboxes that move between machines", () => {
  it("is well when all that was saved comes back, and what was not saved does or does not", () => {
    expect(violations([...three, seen(1, 1, 2), saved(1, 2), seen(2, 1, 2), seen(3, 1, 2, 3), seen(4, 1, 2)])).toEqual(
      [],
    );
  });

  it("shows that what was saved has not come back", () => {
    expect(violations([...three, seen(1, 1, 2), saved(1, 2), seen(2, 1)])[0]).toMatch(/lacks what destroy saved/);
    expect(violations([...three, saved(1, 2), saved(1), seen(2, 1)])[0]).toMatch(/lacks what destroy saved/);
    expect(violations([...three, saved(1), seen(2)])[0]).toMatch(/1 of 1 writes, from 1 d1 on, where it has none/);
  });

  it("shows that something is lost in one that was not made anew", () => {
    expect(violations([...three, seen(1, 1, 2), seen(1, 1)])[0]).toMatch(/lacks what it had/);
    expect(violations([...three, seen(1, 1, 2), seen(2, 1)])).toEqual([]);
  });

  it("shows a state that never was", () => {
    expect(violations([...three, seen(1, 1, 2, 3), seen(2, 1, 3)])[0]).toMatch(/a state that never was, at 3 d3/);
    expect(violations([...three, seen(1, 1, 1)])[0]).toMatch(/a write twice/);
  });

  it("shows what nobody wrote in it, and content that is another", () => {
    expect(violations([seen(1, 9)])[0]).toMatch(/never written in it: 9 d9/);
    expect(violations([write(1, "b"), seen(1, 1)])[0]).toMatch(/never written in it/);
    expect(violations([write(1), { kind: "seen", id: "a", incarnation: 1, lines: ["1 dx"] }])[0]).toMatch(
      /never written in it: 1 dx/,
    );
    const sight = { kind: "seen", id: "a", incarnation: 1, lines: lines(1) } as const;
    expect(violations([write(1), { ...sight, content: "d1" }])).toEqual([]);
    expect(violations([write(1), { ...sight, content: "d2" }])[0]).toMatch(/another content/);
  });

  it("lets a fork have what the other one had, and shows where it does not", () => {
    const forked: ChaosEvent = { kind: "forked", id: "f", from: "a", lines: lines(1) };
    const look = (...seqs: readonly number[]): ChaosEvent => ({
      kind: "seen",
      id: "f",
      incarnation: 0,
      lines: lines(...seqs),
    });
    expect(violations([...three, forked, write(4, "f"), look(1, 2, 4)])).toEqual([]);
    expect(violations([...three, forked, look()])[0]).toMatch(/lacks what it had/);
    expect(violations([...three, forked, write(4, "f"), seen(1, 1, 4)])[0]).toMatch(/never written in it: 4 d4/);
  });
});

describe("what runs at a moment", () => {
  it("shows a sandbox on two machines", () => {
    const at = (id: string, machine: string): { id: string; machine: string } => ({ id, machine });
    expect(doubles([at("a", "1"), at("a", "1"), at("b", "2")])).toEqual([]);
    expect(doubles([at("a", "1"), at("b", "1"), at("a", "2")])).toEqual(["a"]);
  });
});

describe("the manifests of sandboxes", () => {
  it("are well when each replaces the one before", () => {
    const writes = ["", "e1", "e2"].map((replaces) => ({ id: "a", replaces }));
    const readings = [
      { id: "a", epoch: 1, holder: "m1" },
      { id: "a", epoch: 1, holder: null },
      { id: "a", epoch: 2, holder: "m2" },
      { id: "b", epoch: 1, holder: "m2" },
    ];
    expect(forks(writes, readings)).toEqual([]);
  });

  it.each([
    [[null], [], /without a condition/],
    [["", "e1", "e1"], [], /replaced twice, as that of e1/],
    [["", ""], [], /replaced twice, as that of none/],
    [[], [[2, "m"] as const, [1, "m"] as const], /went back from epoch 2 to 1/],
    [[], [[2, "m"] as const, [2, "n"] as const], /two holders/],
  ])("show with %j and %j what was not so", (replaced, read, what) => {
    const writes = replaced.map((replaces) => ({ id: "a", replaces }));
    const readings = read.map(([epoch, holder]) => ({ id: "a", epoch, holder }));
    expect(forks(writes, readings)[0]).toMatch(what);
  });
});

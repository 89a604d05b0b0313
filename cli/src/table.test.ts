import { describe, expect, it } from "vitest";

import { makeColors } from "./colors.js";
import { renderFacts, renderTable } from "./table.js";

const plain = makeColors(false);
const colored = makeColors(true);

describe("renderTable()", () => {
  it("aligns columns without borders or trailing spaces", () => {
    const rows = [
      ["a", "1", "x"],
      ["long", "200", ""],
    ];
    expect(renderTable(["NAME", "N", "TAIL"], rows, { colors: plain, right: ["N"] })).toBe(
      ["NAME    N  TAIL", "a       1  x", "long  200", ""].join("\n"),
    );
  });

  it("prints the head alone where there is nothing", () => {
    expect(renderTable(["NAME", "SIZE"], [], { colors: plain })).toBe("NAME  SIZE\n");
  });

  it("takes control characters out of cells, also of those it colours", () => {
    const paint = colored.red;
    const text = renderTable(["A"], [["x\u001b[2J\ny"], [{ text: "z\u001b[2J", paint }]], { colors: colored });
    expect(text).toBe(`${colored.dim("A")}\nx[2J y\n${paint("z[2J")}\n`);
  });
});

describe("renderFacts()", () => {
  it("prints one fact a line", () => {
    const facts = [
      ["id", "a"],
      ["state", "ready"],
    ] as const;
    expect(renderFacts(facts, plain)).toBe("id     a\nstate  ready\n");
  });
});

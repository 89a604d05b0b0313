import Table from "cli-table3";

import type { Colors } from "./colors.js";
import { printableLine } from "./terminal-text.js";

/** A cell whose text may come from anybody; `paint` colours it after its control characters are gone. */
export type Cell = string | { readonly text: string; readonly paint: (text: string) => string };

/** Rows under a head, without borders; columns of `right` are aligned to the right. Ends with a line feed. */
export function renderTable(
  head: readonly string[],
  rows: readonly (readonly Cell[])[],
  options: { colors: Colors; right?: readonly string[] },
): string {
  const { colors, right = [] } = options;
  const body = rows.map((row) => row.map(renderCell));
  const aligns = head.map((name) => (right.includes(name) ? "right" : "left"));
  return layOut([head.map((name) => colors.dim(name)), ...body], aligns);
}

/** One fact a line: names to the left, values to the right. Ends with a line feed. */
export function renderFacts(facts: readonly (readonly [name: string, value: Cell])[], colors: Colors): string {
  return layOut(
    facts.map(([name, value]) => [colors.dim(name), renderCell(value)]),
    ["left", "left"],
  );
}

function renderCell(cell: Cell): string {
  return typeof cell === "string" ? printableLine(cell) : cell.paint(printableLine(cell.text));
}

function layOut(rows: string[][], colAligns: ("left" | "right")[]): string {
  const names = ["top", "bottom", "left", "mid", "right"] as const;
  const none = { "": "", "-left": "", "-right": "", "-mid": "" };
  const chars = Object.fromEntries(names.flatMap((name) => Object.keys(none).map((end) => [name + end, ""])));
  const style = { "padding-left": 0, "padding-right": 0, head: [], border: [], compact: true };
  const table = new Table({ chars: { ...chars, middle: "  " }, style, colAligns });
  table.push(...rows);
  return `${table.toString().replace(/ +$/gm, "")}\n`;
}

/** One line of the report. */
export interface Row {
  readonly what: string;
  readonly p50: string;
  readonly p99?: string;
  readonly target?: string;
  readonly ok?: boolean;
  /** how it compares with a peer, such as "0.4 of bwrap" */
  readonly ratio?: string;
}

/** The rows as a table that is readable as text and as Markdown. */
export function renderTable(rows: readonly Row[]): string {
  const cells = [
    ["what", "p50", "p99", "target", "", "compared"],
    ...rows.map((row) => [
      row.what,
      row.p50,
      row.p99 ?? "",
      row.target ?? "",
      row.ok === undefined ? "" : row.ok ? "ok" : "MISSED",
      row.ratio ?? "",
    ]),
  ];
  const widths = cells[0]?.map((_, column) => Math.max(3, ...cells.map((row) => row[column]?.length ?? 0))) ?? [];
  const line = (row: readonly string[]): string =>
    `| ${row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join(" | ")} |\n`;
  const [head = [], ...body] = cells;
  return line(head) + line(widths.map((width) => "-".repeat(width))) + body.map(line).join("");
}

export function ms(value: number): string {
  return `${value < 10 ? value.toFixed(2) : value.toFixed(1)} ms`;
}

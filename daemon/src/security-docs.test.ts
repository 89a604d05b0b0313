import { existsSync, readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";

const docs = new URL("../../docs/", import.meta.url);

/** A test that a guarantee names: the file, relative to docs/, and the title as it stands in the source. */
interface NamedTest {
  readonly file: string;
  readonly title: string;
}

interface Guarantee {
  readonly text: string;
  /** the last cell of its row */
  readonly proof: string;
}

/** Rows of all tables below "## Guarantees": guarantee, how, test. */
function readGuarantees(markdown: string): Guarantee[] {
  const rows = markdown.slice(markdown.indexOf("\n## Guarantees")).match(/^\|.*\|$/gm) ?? [];
  const cells = rows.map((row) => row.slice(2, -2).split(" | "));
  return cells
    .filter(([text]) => text !== "guarantee" && text?.startsWith("--") !== true)
    .map((row) => ({ text: row[0] ?? "", proof: row.length === 3 ? (row[2] ?? "") : "" }));
}

/** Reads `[name](file) "title", "title", [name](file) "title"`; a title belongs to the file before it. */
function namedTests(proof: string): NamedTest[] {
  const tests: NamedTest[] = [];
  let file = "";
  for (const [, link, title] of proof.matchAll(/\]\(([^)]+)\)|"([^"]+)"/g)) {
    if (link !== undefined) file = link;
    else if (title !== undefined) tests.push({ file, title });
  }
  return tests;
}

/** Whether the source has a test of exactly that title: in quotes, or as the name of a C function. */
function hasTest(source: string, title: string): boolean {
  return source.includes(`"${title}"`) || source.includes(`\`${title}\``) || source.includes(`void ${title}(void)`);
}

const guarantees = readGuarantees(readFileSync(new URL("security.md", docs), "utf8"));
const named = guarantees.flatMap(({ proof }) => namedTests(proof));

describe("docs/security.md", () => {
  it.each(guarantees)("says what holds the guarantee: $text", ({ proof }) => {
    if (namedTests(proof).length === 0) expect(proof).toMatch(/^none: /);
  });

  it.each(named)("names a test that exists: $file $title", ({ file, title }) => {
    const path = new URL(file, docs);
    expect(existsSync(path)).toBe(true);
    expect(hasTest(readFileSync(path, "utf8"), title)).toBe(true);
  });

  it("is read as it is meant", () => {
    expect(guarantees.length).toBeGreaterThan(40);
    expect(named.length).toBeGreaterThan(guarantees.length);
    expect(namedTests('[a](x.ts) "one", "two", [b](y.c) "three"; constant time: none')).toEqual([
      { file: "x.ts", title: "one" },
      { file: "x.ts", title: "two" },
      { file: "y.c", title: "three" },
    ]);
    expect(hasTest('it("one thing", () => {});', "one")).toBe(false);
    expect(hasTest("static void test_one(void) {", "test_one")).toBe(true);
  });
});

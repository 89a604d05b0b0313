import { open, rm } from "node:fs/promises";
import type { DiffAnswer, DiffEntry, DiffFileAnswer } from "@squash/sdk";
import type { Command } from "commander";

import { action, printAnswer, withJson } from "../action.js";
import type { Colors } from "../colors.js";
import type { Context } from "../context.js";
import { UsageError } from "../exit-status.js";
import { formatBytes } from "../format.js";
import { printableLine, printableText } from "../terminal-text.js";

interface Flags {
  path?: string;
  tar?: string;
  json?: true;
}

/** `sq diff`: what differs between two states of files. */
export function addDiff(program: Command, context: Context): void {
  const diff = program
    .command("diff")
    .description("show what differs between two states of a sandbox's files")
    .argument("<id>")
    .argument("[from]", "base, live, a label, @SANDBOX or @SANDBOX/LABEL; the last snapshot, or base, if absent")
    .argument("[to]", "the same; live, if absent")
    .option("--path <path>", "show the unified diff of that file alone")
    .option("--tar <file>", "write what is new or changed to a tar file, with whiteouts as OCI layers have them")
    .addHelpText("after", "\nExamples:\n  sq diff box\n  sq diff box base clean --path /etc/passwd\n");
  withJson(diff).action(action(context, show));

  async function show(self: Command, id: string, from?: string, to?: string): Promise<void> {
    const { path, tar, json } = self.opts<Flags>();
    if (tar !== undefined && (path !== undefined || json === true))
      throw new UsageError("--tar goes with neither --path nor --json");
    const sandbox = context.client().sandbox(id);
    const sides = { ...(from !== undefined && { from }), ...(to !== undefined && { to }) };
    const { colors, signal } = context;
    if (tar !== undefined) {
      await save(await sandbox.diffTar(sides, { signal }), tar);
    } else if (path !== undefined) {
      const value = await sandbox.diffFile(path, sides, { signal });
      printAnswer(context, self, { value, render: (found) => renderFile(found, colors) });
    } else {
      const value = await sandbox.diff(sides, { signal });
      printAnswer(context, self, { value, render: (found) => renderDiff(found, colors) });
    }
  }
}

/** All of it or no file. */
async function save(content: AsyncIterable<Uint8Array>, path: string): Promise<void> {
  const file = await open(path, "w");
  try {
    for await (const piece of content) await file.writeFile(piece);
  } catch (error) {
    await rm(path, { force: true });
    throw error;
  } finally {
    await file.close();
  }
}

/** One path a line, sorted, with a letter for what happened to it. */
function renderDiff(answer: DiffAnswer, colors: Colors): string {
  const { added, modified, deleted, metadata, truncated } = answer;
  const lines = [
    ...added.map((entry) => ({ entry, text: colors.green(`A ${line(entry)}`) })),
    ...modified.map((entry) => ({ entry, text: colors.yellow(`M ${line(entry)}`) })),
    ...deleted.map((entry) => ({ entry, text: colors.red(`D ${line(entry)}`) })),
    ...metadata.map((entry) => ({ entry, text: colors.dim(`m ${line(entry)}`) })),
  ];
  const sorted = lines.toSorted((a, b) => (a.entry.path < b.entry.path ? -1 : 1));
  const { totals } = answer;
  const all = totals.added + totals.modified + totals.deleted + totals.metadata;
  const rest = truncated ? `and ${all - lines.length} more\n` : "";
  return sorted.map(({ text }) => `${text}\n`).join("") + rest;
}

function line({ path, type, old_size, new_size, changes }: DiffEntry): string {
  const name = `${printableLine(path)}${type === "directory" && path !== "/" ? "/" : ""}`;
  if (changes.length > 0 && !changes.includes("content")) return `${name} (${changes.join(", ")})`;
  if (type !== "file") return name;
  if (old_size === null || new_size === null) return `${name} (${formatBytes(new_size ?? old_size ?? 0)})`;
  return `${name} (${formatBytes(old_size)} to ${formatBytes(new_size)})`;
}

function renderFile({ kind, entry, binary, too_large, diff }: DiffFileAnswer, colors: Colors): string {
  if (diff !== null && diff !== "") return printableText(diff).split("\n").map(paint).join("\n");
  const note = binary ? "binary files differ" : too_large ? "too large to compare line by line" : kind;
  return `${line({ ...entry, changes: [] })}: ${note}\n`;

  function paint(text: string): string {
    if (text.startsWith("+") && !text.startsWith("+++")) return colors.green(text);
    if (text.startsWith("-") && !text.startsWith("---")) return colors.red(text);
    return text.startsWith("@@") ? colors.cyan(text) : text;
  }
}

import { readFile } from "node:fs/promises";
import { addAbortSignal, type Readable } from "node:stream";

import type { Context } from "./context.js";
import { Interruption, UsageError } from "./exit-status.js";

const maxBytes = 65_536;

interface Terminal {
  readonly isTTY?: boolean;
  setRawMode?(on: boolean): unknown;
}

/** Reads something secret from a file, without the line feed at its end. Throws `UsageError`, which shows nothing of it. */
export async function secretFromFile(path: string): Promise<string> {
  const bytes = await readFile(path).catch((error: Error) => {
    throw new UsageError(`Cannot read "${path}": ${error.message}`);
  });
  return textOf(bytes);
}

/** Reads something secret from standard input: all of it, or of a terminal one line, which is not shown. */
export async function secretFromInput(what: string, context: Context): Promise<string> {
  const stdin = context.stdin() as Readable & Terminal;
  addAbortSignal(context.signal, stdin);
  try {
    const isTerminal = stdin.isTTY === true && stdin.setRawMode !== undefined;
    return await (isTerminal ? fromTerminal(what, stdin, context) : fromStream(stdin));
  } catch (error) {
    context.signal.throwIfAborted(); // with its own reason
    throw error;
  }
}

async function fromStream(stdin: Readable): Promise<string> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of stdin) {
    chunks.push(Buffer.from(chunk as Buffer));
    size += (chunk as Buffer).length;
    if (size > maxBytes + 2) break; // refused below
  }
  return textOf(Buffer.concat(chunks));
}

async function fromTerminal(what: string, stdin: Readable & Terminal, context: Context): Promise<string> {
  context.stderr.write(`${what}: `);
  stdin.setEncoding("utf8");
  stdin.setRawMode?.(true);
  let typed = "";
  try {
    for await (const chunk of stdin) {
      for (const key of String(chunk)) {
        if (key === "\r" || key === "\n" || key === "\x04") return typed;
        if (key === "\x03") throw new Interruption("SIGINT");
        if (key === "\x7f" || key === "\b") typed = Array.from(typed).slice(0, -1).join("");
        else typed += key;
      }
    }
    return typed;
  } finally {
    stdin.setRawMode?.(false);
    stdin.pause();
    context.stderr.write("\n");
  }
}

/** An editor or `echo` ends a file with a line feed, which is hardly ever part of a credential. */
function textOf(bytes: Buffer): string {
  const text = bytes.toString("utf8");
  if (!Buffer.from(text).equals(bytes)) throw new UsageError("Cannot use the value: it is not UTF-8");
  const value = text.replace(/\r?\n$/, "");
  if (value === "") throw new UsageError("Cannot use the value: it is empty");
  if (Buffer.byteLength(value) > maxBytes)
    throw new UsageError(`Cannot use the value: it is larger than ${maxBytes} bytes`);
  return value;
}

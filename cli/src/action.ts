import { ConnectionError, isSquashError } from "@squash/sdk";
import { CommanderError, type Command } from "commander";

import type { Context } from "./context.js";
import { exitStatus, Interruption, UsageError } from "./exit-status.js";
import { printableJson, printableText } from "./terminal-text.js";

/** Adds `--json`, which also makes errors JSON. */
export function withJson(command: Command): Command {
  return command.option("--json", "print the API's own JSON");
}

/** Prints what the API answered: as it is with `--json`, otherwise as `render` shows it. */
export function printAnswer<T>(
  context: Context,
  command: Command,
  answer: { value: T; render: (value: T) => string },
): void {
  context.stdout.write(isJson(command) ? `${printableJson(answer.value)}\n` : answer.render(answer.value));
}

/**
 * What a verb does, as commander calls it. Reports what it throws and sets the exit status: `refused` (1 by default), or 130 when
 * interrupted. Errors of usage go on to the caller of the program.
 */
export function action<Args extends unknown[]>(
  context: Context,
  act: (command: Command, ...args: Args) => Promise<void>,
  refused: number = exitStatus.refused,
): (...args: unknown[]) => Promise<void> {
  return async (...args) => {
    // commander appends the options and the command itself
    const command = args.at(-1) as Command;
    try {
      await act(command, ...(args.slice(0, -2) as Args));
    } catch (error) {
      if (error instanceof CommanderError || error instanceof UsageError) throw error;
      if (error instanceof Interruption) return context.exit(error.status);
      reportFailure(context, command, error);
      context.exit(refused);
    }
  };
}

/** Writes an error to standard error: the API's own JSON with `--json`, otherwise its message and what to do about it. */
export function reportFailure(context: Context, command: Command, error: unknown): void {
  const message = error instanceof Error ? error.message : String(error);
  if (isJson(command)) {
    const { code, details = {} } = isSquashError(error) ? error : {};
    const facts = Object.keys(details).length > 0 ? { details } : {};
    context.stderr.write(`${printableJson({ error: message, code, ...facts })}\n`);
    return;
  }
  const hint = hintFor(error);
  context.stderr.write(`sq: ${printableText(message)}\n${hint === undefined ? "" : `sq: ${hint}\n`}`);
}

function hintFor(error: unknown): string | undefined {
  if (error instanceof ConnectionError) return "the variable SQUASH_API holds the address of the daemon";
  if (isSquashError(error) && error.code === "unauthorized")
    return "the variable SQUASH_AUTH_TOKEN holds the daemon's token";
  return undefined;
}

function isJson(command: Command): boolean {
  return command.opts<{ json?: true }>().json === true;
}

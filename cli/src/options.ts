import type { CreateOptions, ExecOptions, ModuleFormat, RetentionRequest } from "@squash/sdk";
import { InvalidArgumentError, type Command } from "commander";

import { UsageError } from "./exit-status.js";

/** Options of `create`, as commander parses them. */
export interface CreateFlags {
  layers?: string[];
  owner?: string;
  task?: string;
  cpu?: number;
  memoryMb?: number;
  pids?: number;
  maxLifetime?: number;
  allowNet?: string[];
  denyNet?: string[];
  netDown?: number;
  netUp?: number;
  netConnections?: number;
  secrets?: string[] | "all";
  nestedUserns?: true;
  keepLast?: number;
  keepFor?: number;
}

/** Options of `exec`, as commander parses them. */
export interface ExecFlags {
  workdir?: string;
  env?: Record<string, string>;
  user?: string;
  timeout?: number;
  stdin?: true;
}

/** Adds the options that describe a new sandbox. */
export function addCreateFlags(command: Command): Command {
  return command
    .option("--layers <names>", "modules to stack, separated by commas (the daemon's default)", commaSeparated)
    .option("--owner <name>", 'whose it is ("anon")')
    .option("--task <text>", "what it is for")
    .option("--cpu <cores>", "cores, 0.01 to 1024 (2)", number)
    .option("--memory-mb <MiB>", "memory, 16 to 1048576 (1024)", wholeNumber)
    .option("--pids <count>", "processes and threads together, 8 to 1000000 (1024)", wholeNumber)
    .option("--max-lifetime <seconds>", "destroy it after this time (0: never)", wholeNumber)
    .option("--allow-net <names>", 'destinations that may be reached, separated by commas, or "none"', commaSeparated)
    .option("--deny-net <names>", "destinations that may not be reached, separated by commas", commaSeparated)
    .option("--net-down <kbit/s>", "bandwidth towards it, 64 to 100000000 (no limit)", wholeNumber)
    .option("--net-up <kbit/s>", "bandwidth from it (no limit)", wholeNumber)
    .option("--net-connections <count>", "new connections a second, 1 to 100000 (no limit)", wholeNumber)
    .option("--secrets <names>", 'secrets that it may use, separated by commas, "none" or "all" (all)', secretNames)
    .option("--nested-userns", "let commands make user namespaces of their own")
    .option("--keep-last <count>", "newest snapshots that stay (the daemon's setting)", wholeNumber)
    .option("--keep-for <time>", "for how long one stays: 90s, 15m, 12h, 7d (the daemon's setting)", duration);
}

/** Adds the options that say how a command runs. */
export function addExecFlags(command: Command): Command {
  return command
    .option("-w, --workdir <path>", 'directory to start in ("/")')
    .option("-e, --env <NAME=value>", "add to the environment; repeatable", assignment)
    .option("-u, --user <name>", 'user name or id inside the sandbox ("root")')
    .option("-t, --timeout <seconds>", "kill it after this time, 1 to 3600 (300)", number)
    .option("-i, --stdin", "pass standard input on, up to 1 MiB of text");
}

/** The creation that the options describe; an absent option stays absent, so that the daemon's default holds. */
export function createOptions(flags: CreateFlags): CreateOptions {
  const limits = defined({
    down_kbit: flags.netDown,
    up_kbit: flags.netUp,
    connections_per_s: flags.netConnections,
  });
  const retention = retentionOf(flags);
  return defined({
    layers: flags.layers,
    owner: flags.owner,
    task: flags.task,
    cpu: flags.cpu,
    memory_mb: flags.memoryMb,
    pids: flags.pids,
    max_lifetime_s: flags.maxLifetime,
    allow_net: flags.allowNet,
    deny_net: flags.denyNet,
    net_limits: Object.keys(limits).length === 0 ? undefined : limits,
    secrets: flags.secrets === "all" ? null : flags.secrets,
    nested_userns: flags.nestedUserns,
    retention: Object.keys(retention).length === 0 ? undefined : retention,
  });
}

/** Which snapshots stay, as the options say. */
export function retentionOf({ keepLast, keepFor }: Pick<CreateFlags, "keepLast" | "keepFor">): RetentionRequest {
  return defined({ keep_last: keepLast, keep_for_s: keepFor });
}

/** The way to run a command that the options describe, but for its standard input. */
export function execOptions(flags: ExecFlags): ExecOptions {
  const user = flags.user !== undefined && /^\d+$/.test(flags.user) ? Number(flags.user) : flags.user;
  return defined({ workdir: flags.workdir, env: flags.env, user, timeout: flags.timeout });
}

/** Items between commas, trimmed; empty ones are dropped. */
export function commaSeparated(text: string): string[] {
  const items = text.split(",").map((item) => item.trim());
  return items.filter((item) => item !== "");
}

/** Images of a module, as `--format` says. Throws `UsageError`. */
export function moduleFormats(format: string): ModuleFormat[] {
  if (format === "both") return ["squashfs", "erofs"];
  if (format === "squashfs" || format === "erofs") return [format];
  throw new UsageError(`Cannot make format "${format}": it must be squashfs, erofs or both`);
}

/** Names between commas; commander takes null for an option without a value. */
export function secretNames(text: string): string[] | "all" {
  if (text === "all") return text;
  return text === "none" ? [] : commaSeparated(text);
}

/** A whole number from 0 on. Throws commander's error for anything else. */
export function wholeNumber(text: string): number {
  if (!/^\d{1,15}$/.test(text)) throw new InvalidArgumentError("It must be a whole number.");
  return Number(text);
}

/** Seconds of a time such as `90s`, `15m`, `12h`, `7d`, or plain seconds. Throws commander's error for anything else. */
export function duration(text: string): number {
  const [, count, unit = "s"] = /^(\d{1,9})([smhd])?$/.exec(text) ?? [];
  if (count === undefined) throw new InvalidArgumentError("It must be a time such as 90s, 15m, 12h or 7d.");
  return Number(count) * { s: 1, m: 60, h: 3_600, d: 86_400 }[unit as "s" | "m" | "h" | "d"];
}

function number(text: string): number {
  if (!/^\d{1,15}(\.\d+)?$/.test(text)) throw new InvalidArgumentError("It must be a number.");
  return Number(text);
}

function assignment(text: string, previous: Record<string, string> = {}): Record<string, string> {
  const index = text.indexOf("=");
  if (index < 1) throw new InvalidArgumentError("It must look like NAME=value.");
  return { ...previous, [text.slice(0, index)]: text.slice(index + 1) };
}

type Defined<T> = { [K in keyof T]?: Exclude<T[K], undefined> };

function defined<T extends object>(fields: T): Defined<T> {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as Defined<T>;
}

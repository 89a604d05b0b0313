import type { NetworkDecision, NetworkInfo, NetworkRequest } from "@squash/sdk";
import type { Command } from "commander";

import { action, printAnswer, withJson } from "../action.js";
import type { Colors } from "../colors.js";
import type { Context } from "../context.js";
import { UsageError } from "../exit-status.js";
import { formatBytes } from "../format.js";
import { wholeNumber } from "../options.js";
import { renderFacts, renderTable, type Cell } from "../table.js";

const help = `
An entry is a host name, *.example.org, an address or a CIDR, each with an optional :port or :port/udp. The most precise entry decides;
between equals, deny. Without allowed entries everything public may be reached, with "none" nothing at all.

Examples:
  sq net show box
  sq net allow box pypi.org files.pythonhosted.org:443     these besides what is allowed already
  sq net allow box --only none                             nothing at all
  sq net allow box --all                                   everything public
  sq net deny box tracker.example.org
  sq net log box -n 50
`;

interface Change {
  readonly remove?: true;
  readonly only?: true;
  readonly all?: true;
}

/** `sq net`: what a sandbox may reach, and what was decided about it. */
export function addNet(program: Command, context: Context): void {
  const net = program.command("net").description("show and change what a sandbox may reach").addHelpText("after", help);

  withJson(net.command("show").description("show the policy and its figures").argument("<id>")).action(
    action(context, async (self, id: string) => {
      const value = await context.client().sandbox(id).network({ signal: context.signal });
      printAnswer(context, self, { value, render: (found) => renderNetwork(found, context.colors) });
    }),
  );

  const allow = net.command("allow").description("allow destinations").argument("<id>").argument("[entries...]");
  withJson(allow)
    .option("--only", "these, and no others")
    .option("--remove", "do not allow these any more")
    .option("--all", "everything public")
    .action(
      action(context, (self, id: string, entries: string[]) =>
        change(self, id, (now) => ({ allow_net: allowed(now.allow_net, entries, self.opts<Change>()) })),
      ),
    );

  const deny = net.command("deny").description("deny destinations").argument("<id>").argument("<entries...>");
  withJson(deny)
    .option("--only", "these, and no others")
    .option("--remove", "do not deny these any more")
    .action(
      action(context, (self, id: string, entries: string[]) =>
        change(self, id, (now) => ({ deny_net: changed(now.deny_net, entries, self.opts<Change>()) })),
      ),
    );

  const log = net.command("log").description("show the latest decisions").argument("<id>");
  withJson(log)
    .option("-n, --last <count>", "only so many, at most 1000 (200)", wholeNumber)
    .action(
      action(context, async (self, id: string) => {
        const { last: limit } = self.opts<{ last?: number }>();
        const value = await context
          .client()
          .sandbox(id)
          .networkLog({ signal: context.signal, ...(limit !== undefined && { limit }) });
        printAnswer(context, self, { value, render: (found) => renderDecisions(found, context.colors) });
      }),
    );

  async function change(self: Command, id: string, next: (now: NetworkInfo) => Partial<NetworkRequest>): Promise<void> {
    const sandbox = context.client().sandbox(id);
    const now = await sandbox.network({ signal: context.signal });
    const { allow_net, deny_net, net_limits } = now;
    const value = await sandbox.setNetwork(
      { allow_net, deny_net, net_limits, ...next(now) },
      { signal: context.signal },
    );
    printAnswer(context, self, { value, render: (found) => renderNetwork(found, context.colors) });
  }
}

/** Throws `UsageError` for what would allow more than was meant. */
function allowed(now: string[] | null, entries: readonly string[], options: Change): string[] | null {
  if (options.all === true) {
    if (entries.length > 0 || options.only === true || options.remove === true)
      throw new UsageError("Cannot allow: --all goes without entries and other options");
    return null;
  }
  if (entries.length === 0) throw new UsageError("Cannot allow: no entries are given; everything public is --all");
  if (options.only === true) return changed([], entries, options);
  if (now === null && options.remove === true)
    throw new UsageError("Cannot take entries back: everything public is allowed; use sq net deny");
  if (now === null)
    throw new UsageError("Cannot allow more: everything public is allowed; use --only to allow nothing but these");
  const rest = changed(
    now.filter((entry) => entry !== "none" || options.remove === true),
    entries,
    options,
  );
  return rest.length === 0 ? ["none"] : rest;
}

function changed(now: readonly string[], entries: readonly string[], { remove, only }: Change): string[] {
  if (remove === true && only === true)
    throw new UsageError("Cannot change entries: --only and --remove exclude each other");
  if (remove === true) return now.filter((entry) => !entries.includes(entry));
  return [...new Set([...(only === true ? [] : now), ...entries])];
}

function renderNetwork(info: NetworkInfo, colors: Colors): string {
  const { down_kbit, up_kbit, connections_per_s } = info.net_limits;
  const limits = [
    down_kbit === undefined ? null : `${down_kbit} kbit/s down`,
    up_kbit === undefined ? null : `${up_kbit} kbit/s up`,
    connections_per_s === undefined ? null : `${connections_per_s} connections/s`,
  ].filter((limit) => limit !== null);
  const facts: [string, Cell | null][] = [
    ["address", info.address],
    ["IPv6 address", info.address6],
    ["gateway", info.gateway],
    ["may reach", info.allow_net?.join(", ") ?? "everything public"],
    ["may not reach", info.deny_net.join(", ") || null],
    ["limits", limits.join(", ") || null],
    ["sent", `${formatBytes(info.sent_bytes)} in ${info.sent_packets} packets`],
    ["received", `${formatBytes(info.received_bytes)} in ${info.received_packets} packets`],
    ["connections", `${info.connections_open} open, ${info.connections_refused} refused`],
    ["names", `${info.dns_allowed} allowed, ${info.dns_refused} refused, ${info.dns_limited} over the limit`],
  ];
  return renderFacts(
    facts.filter((fact): fact is [string, Cell] => fact[1] !== null),
    colors,
  );
}

function renderDecisions(decisions: readonly NetworkDecision[], colors: Colors): string {
  const rows = decisions.map(({ time, kind, name, address, port, protocol, verdict, rule }): Cell[] => {
    const paint = verdict === "allowed" ? colors.green : colors.red;
    const where = port === null ? protocol : `${port}/${protocol}`;
    return [time, kind, { text: verdict, paint }, name ?? "", address ?? "", where, rule];
  });
  return renderTable(["TIME", "BY", "VERDICT", "NAME", "ADDRESS", "PORT", "RULE"], rows, { colors });
}

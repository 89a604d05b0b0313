import type { SandboxInfo, SecretAuditEntry, SecretAuditQuery, SecretInfo, SecretList } from "@squash/sdk";
import type { Command } from "commander";

import { action, printAnswer, withJson } from "../action.js";
import type { Colors } from "../colors.js";
import type { Context } from "../context.js";
import { UsageError } from "../exit-status.js";
import { formatAge } from "../format.js";
import { wholeNumber } from "../options.js";
import { renderFacts, renderTable, type Cell } from "../table.js";
import { addSetFlags, secretRequest } from "./secret-options.js";

const help = `
Sandboxes have placeholders, in the environment, under the secrets' names. squashd's proxy puts the values in, towards the hosts that each
secret is for. A value comes from standard input or a file, and is shown by nothing.

Examples:
  sq secret set API_KEY --host api.example.com              asks for the value, without showing it
  sq secret set API_KEY --host api.example.com < key.txt
  sq secret set GH_TOKEN --host github.com --host '*.github.com' --value-file token.txt
  sq secret set API_KEY --host api.example.com --inject-header 'X-Api-Key: {placeholder}' --value-file key.txt
  sq secret set API_KEY --host api.example.com --path /v1 --keep-value
  sq secret grant box API_KEY GH_TOKEN                      these, and no others
  sq secret grant box --none
  sq secret audit --sandbox box --refused
  sq secret rekey                                           a new key in the place of SQUASH_SECRETS_KEY_FILE
`;

/** `sq secret`: credentials that sandboxes use and never have. */
export function addSecret(program: Command, context: Context): void {
  const secret = program
    .command("secret")
    .description("manage credentials that sandboxes use and never have")
    .addHelpText("after", help);
  const { signal } = context;

  const set = secret.command("set").description("make a secret, or replace one").argument("<name>");
  addSetFlags(withJson(set)).action(
    action(context, async (self, name: string) => {
      const request = await secretRequest(name, self.opts(), context);
      const value = await context.client().putSecret(name, request, { signal });
      printAnswer(context, self, { value, render: (found) => renderSecret(found, context.colors) });
    }),
  );

  withJson(secret.command("list").description("list secrets, without their values")).action(
    action(context, async (self) => {
      const value = await context.client().secrets({ signal });
      printAnswer(context, self, { value, render: (found) => renderSecrets(found, context) });
      if (value.problem !== null) throw new Error(value.problem);
    }),
  );

  withJson(secret.command("rm").description("remove secrets").argument("<names...>")).action(
    action(context, async (_, names: string[]) => {
      for (const name of names) await context.client().removeSecret(name, { signal });
    }),
  );

  secret
    .command("rekey")
    .description("encrypt the file of secrets with another key")
    .action(action(context, () => context.client().rekeySecrets({ signal })));

  const grant = secret.command("grant").description("say which secrets a sandbox may use").argument("<id>");
  withJson(grant.argument("[names...]"))
    .option("--all", "all that there are, those included that come later")
    .option("--none", "none")
    .action(
      action(context, async (self, id: string, names: string[]) => {
        const value = await context.client().sandbox(id).setSecrets(granted(names, self.opts()), { signal });
        printAnswer(context, self, { value, render: renderGrant });
        if (value.secrets_granted.length > 0 && !value.secrets_trusted) context.stderr.write(untrusted(value.id));
      }),
    );

  withJson(secret.command("audit").description("show the latest requests with placeholders of secrets"))
    .option("--sandbox <id>", "of that sandbox only")
    .option("--secret <name>", "of that secret only")
    .option("--refused", "only those that were refused")
    .option("-n, --last <count>", "only so many, at most 1000 (200)", wholeNumber)
    .action(
      action(context, async (self) => {
        const value = await context.client().secretAudit({ signal, ...auditQuery(self.opts()) });
        printAnswer(context, self, { value, render: (found) => renderAudit(found, context.colors) });
      }),
    );
}

/** Throws `UsageError` where it is not said which. */
function granted(names: readonly string[], { all, none }: { all?: true; none?: true }): readonly string[] | null {
  const said = [names.length > 0, all === true, none === true].filter((each) => each).length;
  if (said !== 1) throw new UsageError("Cannot grant: give names of secrets, or --all, or --none");
  return all === true ? null : names;
}

interface AuditFlags {
  readonly sandbox?: string;
  readonly secret?: string;
  readonly refused?: true;
  readonly last?: number;
}

function auditQuery({ sandbox, secret, refused, last }: AuditFlags): SecretAuditQuery {
  return {
    ...(sandbox !== undefined && { sandbox }),
    ...(secret !== undefined && { secret }),
    ...(refused === true && { verdict: "refused" as const }),
    ...(last !== undefined && { limit: last }),
  };
}

function renderSecret(secret: SecretInfo, colors: Colors): string {
  const { inject_header: injected, sigv4, oauth2 } = secret;
  const facts: [string, Cell | null][] = [
    ["name", secret.name],
    ["placeholder", secret.placeholder],
    ["hosts", hostsText(secret)],
    ["paths", secret.allowed_paths?.join(", ") ?? null],
    ["methods", secret.methods?.join(", ") ?? null],
    ["in", secret.locations.join(", ")],
    ["header", injected === null ? null : `${injected.name}: ${injected.value}`],
    ["without TLS", secret.allow_plaintext ? "yes" : null],
    ["elsewhere", secret.elsewhere === "pass" ? "passed with the placeholder" : null],
    ["signs with", sigv4 === null ? null : sigv4.secret_access_key],
    ["token from", oauth2 === null ? null : oauth2.token_url],
  ];
  return renderFacts(
    facts.filter((fact): fact is [string, Cell] => fact[1] !== null),
    colors,
  );
}

function renderSecrets({ secrets }: SecretList, { colors, now }: Context): string {
  const rows = secrets.map((secret): Cell[] => [
    secret.name,
    hostsText(secret),
    secret.placeholder.length > 40 ? `${secret.placeholder.slice(0, 39)}…` : secret.placeholder,
    String(secret.uses),
    String(secret.refusals),
    secret.last_used === null ? "never" : `${formatAge(secret.last_used, now())} ago`,
  ]);
  return renderTable(["NAME", "HOSTS", "PLACEHOLDER", "USES", "REFUSED", "LAST USE"], rows, {
    colors,
    right: ["USES", "REFUSED"],
  });
}

function hostsText({ allowed_hosts: hosts }: SecretInfo): string {
  return hosts.length === 0 ? "none" : hosts.join(", ");
}

function renderGrant({ secrets, secrets_granted: now }: SandboxInfo): string {
  const names = now.length === 0 ? "none" : now.join(", ");
  return `${secrets === null ? `all: ${names}` : names}\n`;
}

function untrusted(id: string): string {
  const next = "its next root does (sq activate, deactivate or restore)";
  return `sq: ${id} does not trust the proxy yet, as it had no secrets when its root was made: ${next}\n`;
}

function renderAudit(entries: readonly SecretAuditEntry[], colors: Colors): string {
  const rows = entries.map((entry): Cell[] => {
    const paint = entry.verdict === "allowed" ? colors.green : colors.red;
    const where = `${entry.host}${entry.path}`;
    const answer = entry.status === null ? (entry.reason ?? "") : String(entry.status);
    const { time, sandbox, secret, method, locations, verdict } = entry;
    return [time, sandbox, secret, { text: verdict, paint }, method, where, locations.join(","), answer];
  });
  return renderTable(["TIME", "SANDBOX", "SECRET", "VERDICT", "METHOD", "WHERE", "IN", "ANSWER"], rows, { colors });
}

import type { OAuth2Request, SecretLocation, SecretRequest } from "@squash/sdk";
import { InvalidArgumentError, type Command } from "commander";

import type { Context } from "../context.js";
import { UsageError } from "../exit-status.js";
import { secretFromFile, secretFromInput } from "../secret-input.js";

interface SetFlags {
  readonly host?: string[];
  readonly nowhere?: true;
  readonly valueFile?: string;
  readonly keepValue?: true;
  readonly placeholder?: string;
  readonly path?: string[];
  readonly method?: string[];
  readonly location?: string[];
  readonly injectHeader?: { name: string; value: string };
  readonly allowPlaintext?: true;
  readonly passElsewhere?: true;
  readonly sigv4Key?: string;
  readonly sigv4Token?: string;
  readonly oauth2Url?: string;
  readonly oauth2Client?: string;
  readonly oauth2ClientSecretFile?: string;
  readonly oauth2RefreshTokenFile?: string;
  readonly oauth2Scope?: string;
}

const locations: readonly string[] = ["header", "basic", "query", "body", "websocket"] satisfies SecretLocation[];

/** Adds the options of `sq secret set`. None takes a value: what is on a command line is seen by everybody on the machine. */
export function addSetFlags(command: Command): Command {
  return command
    .option("--host <name>", "where it may be sent: a host name, or *.example.org; repeatable", repeated)
    .option("--nowhere", "nowhere, as for the key that another secret signs with")
    .option("--value-file <path>", "read the value from a file (standard input)")
    .option("--keep-value", "change the rules of a secret that there is, and leave its value")
    .option("--placeholder <text>", "what sandboxes have in its place (made, in the shape of the value)")
    .option("--path <prefix>", "only for paths below; repeatable (all)", repeated)
    .option("--method <name>", "only with that method; repeatable (all)", repeated)
    .option("--location <where>", `${locations.join(", ")}; repeatable (header and basic)`, repeated)
    .option("--inject-header <Name: value>", "send this header always; {placeholder} stands for the secret", header)
    .option("--allow-plaintext", "send it without TLS, too")
    .option("--pass-elsewhere", "let requests to other hosts go with the placeholder (refused)")
    .option("--sigv4-key <name>", "it is an AWS access key id; the secret with its secret access key")
    .option("--sigv4-token <name>", "the secret with its session token")
    .option("--oauth2-url <url>", "get its value as a token from there, in place of a value")
    .option("--oauth2-client <id>", "the client's id")
    .option("--oauth2-client-secret-file <path>", "file with the client's secret")
    .option("--oauth2-refresh-token-file <path>", "file with a refresh token")
    .option("--oauth2-scope <text>", "the scope to ask for");
}

/** The secret that the options describe. Reads its value last, so that nobody types one in vain. Throws `UsageError`. */
export async function secretRequest(name: string, flags: SetFlags, context: Context): Promise<SecretRequest> {
  const { host: hosts = [], nowhere, sigv4Key, sigv4Token } = flags;
  if ((hosts.length === 0) === (nowhere !== true))
    throw new UsageError("Cannot set the secret: say where it may be sent, by --host, or --nowhere");
  if (sigv4Token !== undefined && sigv4Key === undefined)
    throw new UsageError("Cannot set the secret: --sigv4-token goes with --sigv4-key");
  const unknown = flags.location?.find((location) => !locations.includes(location));
  if (unknown !== undefined)
    throw new UsageError(`Cannot set the secret: --location must be among ${locations.join(", ")}`);
  const oauth2 = await oauth2Of(flags);
  const value = oauth2 === null ? await valueOf(name, flags, context) : undefined;
  return {
    allowed_hosts: hosts,
    ...(value !== undefined && { value }),
    ...(flags.placeholder !== undefined && { placeholder: flags.placeholder }),
    ...(flags.path !== undefined && { allowed_paths: flags.path }),
    ...(flags.method !== undefined && { methods: flags.method }),
    ...(flags.location !== undefined && { locations: flags.location as SecretLocation[] }),
    ...(flags.injectHeader !== undefined && { inject_header: flags.injectHeader }),
    ...(flags.allowPlaintext === true && { allow_plaintext: true }),
    ...(flags.passElsewhere === true && { elsewhere: "pass" as const }),
    ...(sigv4Key !== undefined && {
      sigv4: { secret_access_key: sigv4Key, ...(sigv4Token !== undefined && { session_token: sigv4Token }) },
    }),
    ...(oauth2 !== null && { oauth2 }),
  };
}

async function valueOf(name: string, flags: SetFlags, context: Context): Promise<string | undefined> {
  if (flags.keepValue === true && flags.valueFile !== undefined)
    throw new UsageError("Cannot set the secret: --keep-value and --value-file exclude each other");
  if (flags.keepValue === true) return undefined;
  return flags.valueFile === undefined ? secretFromInput(`value of ${name}`, context) : secretFromFile(flags.valueFile);
}

async function oauth2Of(flags: SetFlags): Promise<OAuth2Request | null> {
  const { oauth2Url, oauth2Client, oauth2ClientSecretFile, oauth2RefreshTokenFile, oauth2Scope } = flags;
  const others = [oauth2Client, oauth2ClientSecretFile, oauth2RefreshTokenFile, oauth2Scope];
  if (oauth2Url === undefined && others.every((other) => other === undefined)) return null;
  if (oauth2Url === undefined || oauth2Client === undefined)
    throw new UsageError("Cannot set the secret: OAuth2 needs --oauth2-url and --oauth2-client");
  if (flags.valueFile !== undefined || flags.keepValue === true)
    throw new UsageError("Cannot set the secret: with OAuth2 its value is got, and not given");
  return {
    token_url: oauth2Url,
    client_id: oauth2Client,
    ...(oauth2ClientSecretFile !== undefined && { client_secret: await secretFromFile(oauth2ClientSecretFile) }),
    ...(oauth2RefreshTokenFile !== undefined && { refresh_token: await secretFromFile(oauth2RefreshTokenFile) }),
    ...(oauth2Scope !== undefined && { scope: oauth2Scope }),
  };
}

function repeated(text: string, previous: string[] = []): string[] {
  return [...previous, text];
}

function header(text: string): { name: string; value: string } {
  const [, name = "", value = ""] = /^([^:\s]+):\s*(.+)$/.exec(text) ?? [];
  if (name === "") throw new InvalidArgumentError("It must look like 'Name: value'.");
  return { name, value };
}

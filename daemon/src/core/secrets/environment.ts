import { SquashError } from "@squash/sdk/errors";
import type { SecretRule } from "./secret.js";
import type { RootTrust } from "./root-trust.js";

/** Inside sandboxes: the certificate authority alone, and what login shells read. */
export const certificatePath = "/usr/local/share/ca-certificates/sq-proxy-ca.crt";
export const profilePath = "/etc/profile.d/squash-secrets.sh";

/** of the explicit proxy, on the gateway's address */
const proxyPort = 8888;
/** so that init takes them beside what a request and its image have; native/src/exec_request.h has the sum */
const maxVariables = 192;
const maxBytes = 65_536;

/** What commands of one sandbox are to find. */
export interface EnvironmentWish {
  readonly granted: readonly Pick<SecretRule, "name" | "placeholder">[];
  /** address that sandboxes reach squashd by; null where they have no network */
  readonly gateway: string | null;
  /** what its root was given; null for nothing, so that no variable may name it */
  readonly trust: RootTrust | null;
}

/**
 * What every command is started with for the sake of secrets: their placeholders, the proxy, and whom to trust. Nothing where no secret is
 * granted. Throws `invalid_request` for more than a command can be given.
 */
export function secretEnvironment({ granted, gateway, trust }: EnvironmentWish): Readonly<Record<string, string>> {
  if (granted.length === 0) return {};
  const placeholders = granted.map(({ name, placeholder }) => [name, placeholder] as const);
  const environment = {
    ...Object.fromEntries(placeholders),
    ...(gateway === null ? {} : proxyVariables(gateway)),
    ...(trust === null ? {} : trustVariables(trust.bundle)),
  };
  const bytes = Object.entries(environment).reduce((sum, [name, value]) => sum + name.length + value.length + 2, 0);
  if (Object.keys(environment).length > maxVariables || bytes > maxBytes)
    throw new SquashError(
      "invalid_request",
      `Cannot give a sandbox ${granted.length} secrets: their variables are more than ${maxVariables} or ${maxBytes} bytes; grant it fewer by "secrets"`,
    );
  return environment;
}

/**
 * The same for login shells. What is set already stays: what a command was started with counts, and it is newer where grants have changed
 * since the file was written.
 */
export function profileScript(environment: Readonly<Record<string, string>>): string {
  const lines = Object.entries(environment).map(
    ([name, value]) => `if [ -z "\${${name}+x}" ]; then ${name}=${quoted(value)}; export ${name}; fi\n`,
  );
  return `# placeholders of secrets and the way to the proxy; written by squash\n${lines.join("")}`;
}

/** In single quotes, within which a shell gives no character but the quote a meaning. */
function quoted(value: string): string {
  return `'${value.replaceAll("'", String.raw`'\''`)}'`;
}

/** Programs know these by names in either case. */
function proxyVariables(gateway: string): Record<string, string> {
  const proxy = `http://${gateway}:${proxyPort}`;
  const direct = `localhost,127.0.0.1,::1,${gateway}`;
  return {
    http_proxy: proxy,
    https_proxy: proxy,
    HTTP_PROXY: proxy,
    HTTPS_PROXY: proxy,
    no_proxy: direct,
    NO_PROXY: direct,
  };
}

/** The first two add to what their programs trust by themselves; the others replace it. */
function trustVariables(bundle: string): Record<string, string> {
  return {
    NODE_EXTRA_CA_CERTS: certificatePath,
    DENO_CERT: certificatePath,
    SSL_CERT_FILE: bundle,
    REQUESTS_CA_BUNDLE: bundle,
    CURL_CA_BUNDLE: bundle,
    GIT_SSL_CAINFO: bundle,
    PIP_CERT: bundle,
  };
}

import { SquashError } from "@squash/sdk/errors";

export const secretNamePattern = "^[A-Za-z_][A-Za-z0-9_]{0,63}$";

const pattern = new RegExp(secretNamePattern);
/** What shells, loaders and the injection itself read: a placeholder there would break each command, or do more. */
const taken =
  /^(PATH|HOME|USER|LOGNAME|SHELL|PWD|OLDPWD|TERM|LANG|LC_.*|TMPDIR|IFS|ENV|BASH_ENV|BASH_FUNC.*|SHELLOPTS|BASHOPTS|PS[0-9]|PROMPT_COMMAND|LD_.*|GCONV_PATH|NODE_OPTIONS|PYTHON(PATH|HOME|STARTUP)|JAVA_TOOL_OPTIONS|PERL5(LIB|OPT)|RUBYOPT|.*_PROXY|NODE_EXTRA_CA_CERTS|SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE|GIT_(SSL_CAINFO|SSH|SSH_COMMAND|EXEC_PATH)|PIP_CERT|DENO_CERT|__PROTO__)$/i;

/** Throws `invalid_request` for what cannot be a secret's name, which is an environment variable's as well. */
export function checkSecretName(name: string): void {
  const problem = !pattern.test(name)
    ? "must be 1 to 64 letters, digits and _, and start with no digit, as it is an environment variable's"
    : taken.test(name)
      ? "is that of an environment variable which has another meaning"
      : null;
  if (problem === null) return;
  const shown = pattern.test(name) ? ` "${name}"` : "";
  throw new SquashError("invalid_request", `Cannot use a secret: its name${shown} ${problem}`, {
    details: { field: "name" },
  });
}

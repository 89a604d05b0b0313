/** What the environment says; nothing else of the CLI reads it. */
export interface Environment {
  /** address of the daemon's API */
  readonly url: string;
  /** absent where the daemon needs none */
  readonly token: string | undefined;
  /** whether colours are unwanted, or the terminal has none */
  readonly isPlain: boolean;
  /** the environment for squashd's own program */
  readonly forDaemon: NodeJS.ProcessEnv;
}

/** Reads SQUASH_API, SQUASH_PORT, SQUASH_AUTH_TOKEN, NO_COLOR and TERM; an empty variable is an absent one. */
export function loadEnvironment(env: NodeJS.ProcessEnv = process.env): Environment {
  // squashd refuses to start with SQUASH_ variables that it does not know, and this one is the CLI's alone
  const { SQUASH_API, ...forDaemon } = env;
  return {
    url: SQUASH_API || `http://127.0.0.1:${env["SQUASH_PORT"] || "8080"}`,
    token: env["SQUASH_AUTH_TOKEN"] || undefined,
    isPlain: Boolean(env["NO_COLOR"]) || env["TERM"] === "dumb",
    forDaemon,
  };
}

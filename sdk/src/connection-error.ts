/** The daemon could not be reached, went away, or what answered is not squashd. The daemon's own refusals are `SquashError`. */
export class ConnectionError extends Error {
  override readonly name: string = "ConnectionError";
  /** the address as it was given, such as `unix:/run/squash/api.sock` */
  readonly address: string;

  constructor(address: string, message: string, options: { cause?: unknown } = {}) {
    super(message, "cause" in options ? { cause: options.cause } : undefined);
    this.address = address;
  }
}

const advice: Readonly<Record<string, string>> = {
  ECONNREFUSED: "nothing listens there; is squashd running?",
  ENOENT: "there is no such socket; is squashd running?",
  EACCES: "this user may not open the socket",
  ENOTFOUND: "there is no such host",
  EAI_AGAIN: "the name of the host could not be looked up",
  ECONNRESET: "the connection was closed before the answer was complete; was squashd stopped?",
  EPIPE: "the connection was closed before the request was complete; was squashd stopped?",
  ETIMEDOUT: "the host does not answer",
  EHOSTUNREACH: "there is no route to the host",
  ENETUNREACH: "there is no route to the host",
};

/** Puts a socket's error into words: what was wanted, where, what was found and what to check. */
export function explainFailure(address: string, request: string, cause: unknown): ConnectionError {
  const code = codeOf(cause);
  const found = (code !== undefined && advice[code]) || (cause instanceof Error ? cause.message : String(cause));
  const suffix = code === undefined ? "" : ` (${code})`;
  return new ConnectionError(address, `Cannot ${request} at "${address}": ${found}${suffix}`, { cause });
}

/** The errno of a socket's error, or the code of Node's HTTP parser. */
export function codeOf(error: unknown): string | undefined {
  if (!(error instanceof Error) || !("code" in error)) return undefined;
  return typeof error.code === "string" ? error.code : undefined;
}

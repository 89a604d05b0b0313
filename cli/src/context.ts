import type { Readable } from "node:stream";

import type { Client } from "@squash/sdk";

import type { Colors } from "./colors.js";
import type { Squashd } from "./squashd.js";

/** Somewhere to write text to: a stream, or a test's buffer. */
interface Output {
  write(text: string): unknown;
}

/** All that a verb touches. */
export interface Context {
  /** the API's client; throws `SquashError` for an address or a token that cannot be used */
  readonly client: () => Client;
  /** the daemon's own program on this host */
  readonly squashd: Squashd;
  readonly stdin: () => Readable;
  readonly stdout: Output;
  readonly stderr: Output;
  /** whether standard error is a terminal, where lines can be drawn anew */
  readonly isTerminal: boolean;
  /** colours of standard output */
  readonly colors: Colors;
  /** aborted by Ctrl-C and SIGTERM, with an `Interruption` as the reason */
  readonly signal: AbortSignal;
  readonly now: () => Date;
  /** sets the exit status of `sq`, which is 0 otherwise */
  readonly exit: (status: number) => void;
}

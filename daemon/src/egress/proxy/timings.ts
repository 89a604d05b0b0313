/** All in milliseconds. */
export interface Timings {
  /** until a ClientHello is there as a whole */
  readonly hello: number;
  /** until the head of a request is there as a whole, the first from the connection on */
  readonly headers: number;
  /** how often late heads are looked for */
  readonly check: number;
  /** between two requests on a connection */
  readonly keep: number;
  /** until a name is resolved */
  readonly resolve: number;
  /** until one address answers */
  readonly connect: number;
  /** until any of a name's addresses answers */
  readonly dial: number;
  /** of silence before the head of an answer */
  readonly answer: number;
  /** how long a connection to a server is kept for the next request */
  readonly idle: number;
  /** how long a refused client may take to read why */
  readonly linger: number;
}

export const defaultTimings: Timings = {
  hello: 10_000,
  headers: 15_000,
  check: 1_000,
  keep: 60_000,
  resolve: 15_000,
  connect: 5_000,
  dial: 15_000,
  answer: 300_000,
  idle: 15_000,
  linger: 1_000,
};

/** until the kernel asks whether the other end of a silent connection is still there; it gives up after ten questions, a second apart */
export const tcpKeepAlive = { keepAlive: true, keepAliveInitialDelay: 30_000 } as const;

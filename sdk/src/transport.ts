/** Carries requests to a daemon. The only part of the client that knows about sockets; tests pass their own. */
export interface Transport {
  /** the address for messages */
  readonly address: string;

  /**
   * Sends one request and reads the whole answer, whatever its status. Throws `ConnectionError` when no complete answer came
   * or it is too large, and the signal's reason when `signal` aborts; either closes the connection.
   */
  send(request: TransportRequest): Promise<TransportReply>;

  /**
   * Sends one request and answers as soon as the head of the answer is there, with the rest as it comes. A transport that cannot do so lacks
   * it. Throws like `send`, also while the content is read.
   */
  open?(request: TransportRequest): Promise<TransportStream>;

  /** Closes idle connections. Requests that run are not disturbed. */
  close(): void;
}

export interface TransportRequest {
  readonly method: "GET" | "POST" | "PUT" | "DELETE";
  /** the route, from "/" on, escaped */
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  /** text, or bytes that are sent as they come, of the length that the headers say or in chunks */
  readonly body?: string | AsyncIterable<Uint8Array>;
  readonly signal?: AbortSignal | undefined;
  /** milliseconds until the answer must be complete; absence means no limit */
  readonly deadlineMs?: number | undefined;
}

export interface TransportReply {
  readonly status: number;
  /** media type without parameters, in lower case; "" where the header is missing */
  readonly contentType: string;
  readonly text: string;
}

/** An answer that goes on. Leaving its content closes the connection. */
export interface TransportStream {
  readonly status: number;
  readonly contentType: string;
  readonly content: AsyncIterable<Uint8Array>;
}

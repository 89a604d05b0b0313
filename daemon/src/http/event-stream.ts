import type { FastifyReply } from "fastify";

const heartbeatMs = 15_000;
/** between two events; what happens faster is told together */
const minGapMs = 100;

export interface StreamedState {
  readonly name: string;
  readonly data: unknown;
  /** whether nothing comes after it */
  readonly isLast: boolean;
}

/**
 * Answers with server-sent events: the state now, and again whenever it has changed. As each event has all of it, a client that reads
 * slowly gets fewer, and none is kept for it.
 */
export function streamState(
  reply: FastifyReply,
  source: { read(): StreamedState; watch(changed: () => void): () => void },
): void {
  reply.hijack();
  const { raw } = reply;
  raw.writeHead(200, {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
  });
  let isChanged = true;
  let timer: NodeJS.Timeout | null = null;
  const forget = source.watch(() => {
    isChanged = true;
    timer ??= setTimeout(send, minGapMs);
  });
  const heartbeat = setInterval(() => {
    if (!raw.writableNeedDrain) raw.write(": still here\n\n");
  }, heartbeatMs);
  raw.on("drain", () => {
    if (isChanged) send();
  });
  raw.on("error", () => undefined); // whoever went away learns nothing more
  raw.once("close", () => {
    forget();
    clearInterval(heartbeat);
    if (timer !== null) clearTimeout(timer);
  });
  send();

  function send(): void {
    timer = null;
    if (raw.destroyed || raw.writableEnded || raw.writableNeedDrain) return;
    isChanged = false;
    const { name, data, isLast } = source.read();
    raw.write(`event: ${name}\ndata: ${JSON.stringify(data)}\n\n`);
    if (isLast) raw.end();
  }
}

import { createServer, type IncomingMessage, type Server } from "node:http";

/** One request as a server got it. */
export interface Got {
  readonly line: string;
  readonly rawHeaders: readonly string[];
  readonly body: string;
  readonly trailers: readonly string[];
}

/** A server that keeps every request and answers with its own name, the path and the body. */
export function origin(name: string, got: Got[]): Server {
  const server = createServer((request, response) => {
    void bodyOf(request).then((body) => {
      const line = `${request.method} ${request.url}`;
      got.push({ line, rawHeaders: request.rawHeaders, body, trailers: request.rawTrailers });
      response.end(`<${name} ${request.url} ${body}>`);
    });
  });
  server.maxHeadersCount = 0;
  return server;
}

async function bodyOf(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  try {
    for await (const chunk of request) chunks.push(chunk as Buffer);
  } catch {
    chunks.push(Buffer.from("(aborted)"));
  }
  return Buffer.concat(chunks).toString("latin1");
}

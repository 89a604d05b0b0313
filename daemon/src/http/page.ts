import { readFileSync, readdirSync } from "node:fs";
import { extname, join } from "node:path";
import type { FastifyInstance } from "fastify";

const types: Readonly<Record<string, string>> = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".svg": "image/svg+xml",
};

/** Only what the page itself brings may run or be loaded, and nobody may frame it: it shows what sandboxes wrote. */
const contentSecurityPolicy = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "connect-src 'self'",
  "img-src 'self' data:",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join("; ");

/** Serves the page's files, each read once, at the root: `index.html` as "/". */
export function pageRoutes(app: FastifyInstance, folder: string): void {
  for (const name of readdirSync(folder)) {
    const type = types[extname(name)];
    if (type === undefined) continue;
    const content = readFileSync(join(folder, name));
    app.get(name === "index.html" ? "/" : `/${name}`, { schema: { hide: true } }, (_, reply) =>
      reply
        .type(type)
        .header("content-security-policy", contentSecurityPolicy)
        .header("referrer-policy", "no-referrer")
        .header("cache-control", "no-cache")
        .send(content),
    );
  }
}

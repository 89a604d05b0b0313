import { createHash, timingSafeEqual } from "node:crypto";
import { isIP } from "node:net";
import { SquashError } from "@squash/sdk/errors";
import type { FastifyReply, FastifyRequest } from "fastify";

type Hook = (request: FastifyRequest, reply: FastifyReply, done: (error?: Error) => void) => void;

/** Lets only requests with the token through; in constant time, whatever is sent. */
export function requireToken(token: string): Hook {
  const wanted = digest(token);
  return (request, reply, done) => {
    const [, given] = /^bearer +(\S+)$/i.exec(request.headers.authorization ?? "") ?? [];
    if (timingSafeEqual(digest(given ?? ""), wanted)) {
      done();
      return;
    }
    void reply.header("www-authenticate", 'Bearer realm="squash"');
    done(
      new SquashError(
        "unauthorized",
        'Cannot answer: unauthorized; send "Authorization: Bearer <token>" with the value of SQUASH_AUTH_TOKEN',
      ),
    );
  };
}

/**
 * Without a token, a page in a browser on this machine could be led to send requests here: by a name that it makes resolve to
 * loopback, or from its own origin. So a name in Host must be this machine's, and Origin, where there is one, the same.
 */
export function requireOwnOrigin(): Hook {
  return (request, _reply, done) => {
    const { host, origin } = request.headers;
    const isOwn = isLocalName(hostName(host ?? "")) && (origin === undefined || origin === `http://${host}`);
    done(
      isOwn
        ? undefined
        : new SquashError(
            "unauthorized",
            "Cannot answer: the request comes from another site's page; use localhost, or set SQUASH_AUTH_TOKEN",
          ),
    );
  };
}

function digest(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}

function hostName(host: string): string {
  return host
    .replace(/:\d+$/, "")
    .replace(/^\[(.*)\]$/, "$1")
    .toLowerCase();
}

function isLocalName(name: string): boolean {
  return name === "localhost" || isIP(name) !== 0;
}

import { SquashError } from "@squash/sdk/errors";
import type { FastifyInstance } from "fastify";
import { sendError } from "./errors.js";
import { isUpload } from "./upload.js";

/** Answers a request whose body does not arrive in time, and hangs up; uploads have times of their own. Node's own limit knows no exceptions. */
export function limitBodies(app: FastifyInstance, milliseconds: number): void {
  app.addHook("onRequest", (request, reply, done) => {
    const { raw, headers } = request;
    const hasBody = headers["content-length"] !== undefined || headers["transfer-encoding"] !== undefined;
    if (hasBody && !raw.complete && !isUpload(request)) {
      const timer = setTimeout(() => {
        if (raw.complete || reply.sent) return;
        void reply.header("connection", "close");
        sendError(reply, new SquashError("request_timeout", "Cannot read the request: it did not arrive in time"));
      }, milliseconds);
      const forget = (): void => clearTimeout(timer);
      raw.once("end", forget).once("close", forget);
    }
    done();
  });
}

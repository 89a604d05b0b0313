import { spawn } from "node:child_process";
import { hasPassword } from "./endpoints.js";
import { headerOf, type Exchange } from "./wire.js";

/** Repositories by git's own program for servers, which speaks CGI (RFC 3875), to those who have the password. */
export async function serveGit(exchange: Exchange): Promise<void> {
  if (!hasPassword(exchange)) return;
  const { request, response, url, options } = exchange;
  const child = spawn("git", ["http-backend"], {
    env: {
      PATH: process.env["PATH"],
      GIT_PROJECT_ROOT: options.repositories,
      GIT_HTTP_EXPORT_ALL: "1",
      GIT_CONFIG_COUNT: "1",
      GIT_CONFIG_KEY_0: "safe.directory",
      GIT_CONFIG_VALUE_0: "*",
      PATH_INFO: url.pathname.slice("/git".length),
      QUERY_STRING: url.search.slice(1),
      REQUEST_METHOD: request.method,
      CONTENT_TYPE: headerOf(exchange, "content-type"),
      HTTP_CONTENT_ENCODING: headerOf(exchange, "content-encoding"),
      GIT_PROTOCOL: headerOf(exchange, "git-protocol"),
      REMOTE_USER: "somebody",
      REMOTE_ADDR: "192.0.2.1",
    },
    stdio: ["pipe", "pipe", "inherit"],
  });
  child.stdin.on("error", () => undefined); // it may end before it has read all
  child.stdin.end(await exchange.body());
  let head = Buffer.alloc(0);
  for await (const piece of child.stdout as AsyncIterable<Buffer>) {
    if (response.headersSent) {
      response.write(piece);
      continue;
    }
    head = Buffer.concat([head, piece]);
    const end = head.indexOf("\r\n\r\n");
    if (end < 0) continue;
    let status = 200;
    for (const line of head.toString("latin1", 0, end).split("\r\n")) {
      const [name = "", value = ""] = line.split(/: */, 2);
      if (name === "Status") status = parseInt(value, 10);
      else response.setHeader(name, value);
    }
    response.writeHead(status);
    response.write(head.subarray(end + 4));
  }
  response.end();
}

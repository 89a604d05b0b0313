import { createServer, type Server } from "node:net";
import { SquashError } from "@squash/sdk/errors";

/** Names without a file belong to a network namespace, and go with their process. Source: unix(7) */
const name = "\0squash-network";

/** Makes sure that of all squashd in a network namespace only one has the firewall's table. Throws `SquashError` "kernel". */
export function lockNetwork(): Promise<Server> {
  const server = createServer((socket) => socket.destroy());
  return new Promise((resolve, reject) => {
    server.once("error", (cause: NodeJS.ErrnoException) => {
      const reason =
        cause.code === "EADDRINUSE" ? "another squashd runs here; give one of them SQUASH_SUBNET=none" : cause.message;
      reject(new SquashError("kernel", `Cannot take over this machine's network for sandboxes: ${reason}`, { cause }));
    });
    server.listen({ path: name }, () => {
      server.unref();
      resolve(server);
    });
  });
}

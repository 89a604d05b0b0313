import { createServer, connect } from "node:net";
import { helloFor } from "../daemon/src/egress/proxy/testing/build-hello.js";

/**
 * The ends of a measurement of throughput, one process each. `serve ADDRESS PORT` sends what it has to whoever has sent something;
 * `fetch ADDRESS PORT NAME BYTES` says a ClientHello for the name, reads so many bytes, and prints gigabits a second.
 */
const [role, address = "", port = "", name = "", bytes = ""] = process.argv.slice(2);
const chunk = Buffer.alloc(1_048_576);

if (role === "serve") {
  createServer((socket) => {
    const push = (): void => {
      while (socket.write(chunk));
    };
    socket.on("error", () => undefined);
    socket.on("drain", push);
    socket.once("data", push);
  }).listen(Number(port), address, () => process.stdout.write("ready\n"));
} else {
  let [left, start] = [Number(bytes), 0];
  const buffer = Buffer.alloc(1_048_576);
  const socket = connect({
    host: address,
    port: Number(port),
    onread: {
      buffer,
      callback: (read) => {
        if (start === 0) start = performance.now();
        left -= read;
        if (left <= 0) {
          process.stdout.write(`${((Number(bytes) * 8) / (performance.now() - start) / 1e6).toFixed(3)}\n`);
          process.exit();
        }
        return true;
      },
    },
  });
  socket.on("error", (error) => {
    process.stderr.write(`${error.message}\n`);
    process.exit(1);
  });
  socket.on("close", () => process.exit(1));
  socket.write(helloFor(name));
}

// flood.mjs HOST GATEWAY PORT: opens 700 connections, writes how many stay into /tmp/left whenever none is opened or closed any more, and holds
// them until there is /tmp/enough.
import { existsSync, writeFileSync } from "node:fs";
import { connect } from "node:net";

const [host, gateway, port] = process.argv.slice(2);
const wanted = 700;
let [opened, failed, closed, seen, same] = [0, 0, 0, "", 0];
for (let count = 0; count < wanted; count++) {
  let isOpen = false;
  const socket = connect(Number(port), gateway);
  socket.on("error", () => undefined);
  socket.on("connect", () => {
    isOpen = true;
    opened++;
    socket.write(`GET http://${host}/ HTTP/1.1\r\n`);
  });
  socket.on("close", () => (isOpen ? closed++ : failed++));
}
setInterval(() => {
  const now = [opened, failed, closed].join();
  same = now === seen && opened + failed === wanted ? same + 1 : 0;
  seen = now;
  if (same === 5) writeFileSync("/tmp/left", String(opened - closed));
  if (existsSync("/tmp/enough")) process.exit();
}, 100);
setTimeout(() => process.exit(1), 40_000);

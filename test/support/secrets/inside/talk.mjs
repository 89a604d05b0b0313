// talk.mjs, with an array of tasks in JSON as its input: for each, all at once, sends bytes over a connection. Prints what came back and how
// it ended, in JSON. {host, port?, tls?, serverName?, verify?, alpn?, pieces: [latin1...], pauseMs?, until?, timeoutMs?, address?}
import { connect } from "node:net";
import { connect as connectTls } from "node:tls";
import { text } from "node:stream/consumers";

/** of all that came back, what is told */
const maxText = 40_000;

function talk(task) {
  const { host, tls = true, port = tls ? 443 : 80, serverName = host, verify = true, alpn = "http/1.1" } = task;
  const { pieces, pauseMs = 0, until = "", timeoutMs = 3_000, address = host } = task;
  const alpnProtocols = alpn === "" ? undefined : [alpn];
  const options = {
    host: address,
    port,
    servername: serverName,
    ALPNProtocols: alpnProtocols,
    rejectUnauthorized: verify,
  };
  return new Promise((resolve) => {
    const socket = tls ? connectTls(options) : connect({ host: address, port });
    let said = "";
    let total = 0;
    const done = (end) => {
      clearTimeout(timer);
      socket.destroy();
      resolve({ text: said.slice(0, maxText), end, total });
    };
    const timer = setTimeout(() => done("silence"), timeoutMs);
    socket.on("error", (error) => done(error.code ?? error.message));
    socket.on("end", () => done("end"));
    socket.on("close", () => done("close"));
    socket.on("data", (bytes) => {
      timer.refresh();
      total += bytes.length;
      if (said.length < maxText) said += bytes.toString("latin1");
      if (until !== "" && said.includes(until)) done("enough");
    });
    socket.on(tls ? "secureConnect" : "connect", async () => {
      socket.setNoDelay(true);
      for (const piece of pieces) {
        if (socket.destroyed) return;
        socket.write(Buffer.from(piece, "latin1"));
        if (pauseMs > 0) await new Promise((resume) => setTimeout(resume, pauseMs));
      }
    });
  });
}

const tasks = JSON.parse(await text(process.stdin));
const results = await Promise.all(tasks.map(talk));
process.stdout.write(JSON.stringify(results), () => process.exit());

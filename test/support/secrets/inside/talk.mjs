// Sends bytes over a connection for each of many tasks, all at once: what came back, and how it ended.
// {host, port?, tls?, serverName?, verify?, alpn?, pieces: [latin1...], pauseMs?, until?, timeoutMs?, endMs?, address?}
import { lookup } from "node:dns/promises";
import { connect } from "node:net";
import { connect as connectTls } from "node:tls";

/** of all that came back, what is told */
const maxText = 40_000;

/** Each name is asked for once: of many tasks the last ones would meet the limit of DNS queries instead of what they are for. */
export async function talkAll(tasks) {
  const addresses = new Map();
  const addressOf = (name) => {
    if (!addresses.has(name)) addresses.set(name, lookup(name));
    return addresses.get(name);
  };
  return Promise.all(
    tasks.map(async (task) => {
      try {
        const { address } = await addressOf(task.address ?? task.host);
        return await talk({ ...task, address });
      } catch (error) {
        return { text: "", end: error.code ?? error.message, total: 0 };
      }
    }),
  );
}

function talk(task) {
  const { host, tls = true, port = tls ? 443 : 80, serverName = host, verify = true, alpn = "http/1.1" } = task;
  const { pieces, pauseMs = 0, until = "", timeoutMs = 3_000, endMs = 60_000, address } = task;
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
    const done = (how) => {
      clearTimeout(timer);
      clearTimeout(end);
      socket.destroy();
      resolve({ text: said.slice(0, maxText), end: how, total });
    };
    const timer = setTimeout(() => done("silence"), timeoutMs);
    const end = setTimeout(() => done("enough"), endMs);
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

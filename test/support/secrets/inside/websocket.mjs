// websocket.mjs URL, with options in JSON as its input: sends each of `messages` (a text, or an array of fragments), waits for as many answers, and prints them in JSON.
// {messages, headers?, deflate?: boolean}
import { text } from "node:stream/consumers";
import WebSocket from "ws";

const [url] = process.argv.slice(2);
const { messages, headers = {}, deflate = true } = JSON.parse(await text(process.stdin));
const result = { answers: [], extensions: "", closed: 0, error: "" };
const socket = new WebSocket(url, { headers, perMessageDeflate: deflate, handshakeTimeout: 3_000 });

function done() {
  process.stdout.write(JSON.stringify(result), () => process.exit());
}
setTimeout(done, 4_000);
socket.on("error", (error) => (result.error = error.message));
socket.on("close", (code) => {
  result.closed = code;
  done();
});
socket.on("open", async () => {
  result.extensions = socket.extensions;
  for (const message of messages) {
    const fragments = Array.isArray(message) ? message : [message];
    for (const [index, fragment] of fragments.entries()) {
      socket.send(fragment, { fin: index === fragments.length - 1 });
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }
});
socket.on("message", (data) => {
  result.answers.push(data.toString());
  if (result.answers.length === messages.length) socket.close(1000);
});

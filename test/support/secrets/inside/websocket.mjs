// Sends each of `messages` (a text, or an array of fragments), and waits for as many answers.
// {url, messages, headers?, deflate?: boolean}
import WebSocket from "ws";

export function talkByWebSocket({ url, messages, headers = {}, deflate = true }) {
  const result = { answers: [], extensions: "", closed: 0, error: "" };
  const socket = new WebSocket(url, { headers, perMessageDeflate: deflate, handshakeTimeout: 3_000 });
  return new Promise((resolve) => {
    const timer = setTimeout(() => {
      socket.terminate();
      resolve(result);
    }, 4_000);
    socket.on("error", (error) => (result.error = error.message));
    socket.on("close", (code) => {
      clearTimeout(timer);
      result.closed = code;
      resolve(result);
    });
    socket.on("open", async () => {
      result.extensions = socket.extensions;
      for (const message of messages) {
        const fragments = Array.isArray(message) ? message : [message];
        for (const [index, fragment] of fragments.entries()) {
          if (socket.readyState !== WebSocket.OPEN) return;
          socket.send(fragment, { fin: index === fragments.length - 1 });
          await new Promise((resume) => setTimeout(resume, 5));
        }
      }
    });
    socket.on("message", (data) => {
      result.answers.push(data.toString());
      if (result.answers.length === messages.length) socket.close(1000);
    });
  });
}

// One request of HTTP/2 for each of `requests`, on one connection, one after the other: [{status, headers, text, trailers, error}...].
// {host, serverName?, requests: [{headers, pieces?: [latin1...], pauseMs?, trailers?}]}
import { connect } from "node:http2";

export async function askHttp2({ host, serverName = host, requests }) {
  const session = connect(`https://${host}`, { servername: serverName });
  session.on("error", () => undefined);
  const results = [];
  for (const request of requests) results.push(await ask(session, request));
  session.destroy();
  return results;
}

async function ask(session, { headers, pieces = [], pauseMs = 0, trailers }) {
  const result = { status: 0, headers: {}, text: "", trailers: {}, error: "" };
  await new Promise((resolve) => {
    let stream;
    try {
      stream = session.request(headers, {
        endStream: pieces.length === 0 && !trailers,
        waitForTrailers: trailers !== undefined,
      });
    } catch (error) {
      result.error = error.code ?? error.message;
      return resolve();
    }
    const timer = setTimeout(() => stream.close(8), 3_000);
    stream.on("response", (fields) => Object.assign(result, { status: fields[":status"], headers: fields }));
    stream.on("trailers", (fields) => (result.trailers = fields));
    stream.on("wantTrailers", () => stream.sendTrailers(trailers));
    stream.on("data", (bytes) => (result.text += bytes.toString("latin1")));
    stream.on("error", (error) => (result.error = error.code ?? error.message));
    stream.on("close", () => {
      clearTimeout(timer);
      resolve();
    });
    (async () => {
      for (const piece of pieces) {
        stream.write(Buffer.from(piece, "latin1"));
        await new Promise((resolve) => setTimeout(resolve, pauseMs));
      }
      if (pieces.length > 0 || trailers) stream.end();
    })();
  });
  return result;
}

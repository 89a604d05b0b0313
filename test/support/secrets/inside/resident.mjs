// resident.mjs PATH: a server on a socket at PATH for the clients beside it, so that not each of them waits for a start of Node. POST /NAME
// with a task in JSON; the answer is what came of it, in JSON.
import { renameSync } from "node:fs";
import { createServer } from "node:http";
import { text } from "node:stream/consumers";
import { askHttp2 } from "./h2.mjs";
import { talkAll } from "./talk.mjs";
import { talkByWebSocket } from "./websocket.mjs";

const [path] = process.argv.slice(2);
const clients = { h2: askHttp2, talk: talkAll, websocket: talkByWebSocket };

const server = createServer(async (request, response) => {
  const client = clients[request.url.slice(1)];
  if (client === undefined) return response.end();
  try {
    response.end(JSON.stringify(await client(JSON.parse(await text(request)))));
  } catch (error) {
    response.writeHead(500).end(String(error.stack));
  }
});
// in one step, also where one is that nobody listens at any more
const own = `${path}.${process.pid}`;
server.listen(own, () => renameSync(own, path));

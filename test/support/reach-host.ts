import { createSocket } from "node:dgram";
import { connect, createServer, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";

/** A program that connects and serves in whatever network namespace it was started in, as its parent says: see reach.ts. */

export type Protocol = "tcp" | "udp";
export type HeldKind = "echo" | "http" | "tls";

export type Order =
  | { kind: "try"; protocol: Protocol; address: string; port: number; timeoutMs: number }
  | { kind: "hold"; as: HeldKind; address: string; port: number; name: string }
  | { kind: "state"; handle: number }
  | { kind: "many"; address: string; port: number; count: number }
  | { kind: "pump"; address: string; port: number; ms: number }
  | { kind: "storm"; targets: readonly (readonly [string, number])[]; atOnce: number; timeoutMs: number }
  | { kind: "calm"; handle: number }
  | { kind: "release" }
  | { kind: "relay"; path: string; address: string; port: number }
  | { kind: "listen"; address: string; port: number };

/** A transfer that goes on; times are of Date.now. */
export interface HeldState {
  received: number;
  lastAt: number;
  endedAt: number | null;
}

/** What a storm of connections came to; `opened` says how often each target answered, and when last. */
export interface StormResult {
  attempts: number;
  opened: Record<string, { times: number; lastAt: number }>;
}

const held: { state: HeldState; socket: Socket; timer: NodeJS.Timeout | undefined }[] = [];
const storms: { going: boolean; result: StormResult; ended: Promise<unknown> }[] = [];
const many: Socket[] = [];
const openAtOnce = 200;

/** "open", "refused CODE" or "silent". */
function tryTcp(address: string, port: number, timeoutMs: number): Promise<string> {
  return new Promise((resolve) => {
    const socket = connect({ host: address, port, timeout: timeoutMs });
    const settle = (result: string): void => {
      resolve(result);
      socket.destroy();
    };
    socket.on("timeout", () => settle("silent"));
    socket.on("error", (error: NodeJS.ErrnoException) => settle(`refused ${error.code ?? ""}`));
    socket.on("connect", () => settle("open"));
  });
}

function tryUdp(address: string, port: number, timeoutMs: number): Promise<string> {
  return new Promise((resolve) => {
    const socket = createSocket(address.includes(":") ? "udp6" : "udp4");
    const send = (): void => socket.send("knock");
    const settle = (result: string): void => {
      clearInterval(again);
      clearTimeout(late);
      resolve(result);
      socket.close();
    };
    const again = setInterval(send, timeoutMs / 4);
    const late = setTimeout(() => settle("silent"), timeoutMs);
    socket.once("error", (error: NodeJS.ErrnoException) => settle(`refused ${error.code ?? ""}`));
    socket.once("message", () => settle("open"));
    socket.connect(port, address, send);
  });
}

function hold({ as, address, port, name }: Extract<Order, { kind: "hold" }>): Promise<number> {
  const state: HeldState = { received: 0, lastAt: 0, endedAt: null };
  const socket: Socket =
    as === "tls"
      ? connectTls({ host: address, port, servername: name, rejectUnauthorized: false })
      : connect({ host: address, port });
  socket.setNoDelay(true);
  const entry = { state, socket, timer: undefined as NodeJS.Timeout | undefined };
  const handle = held.push(entry) - 1;
  const end = (): void => {
    clearInterval(entry.timer);
    state.endedAt ??= Date.now();
  };
  socket.on("error", end);
  socket.on("close", end);
  return new Promise((resolve, reject) => {
    const started = (): void => resolve(handle);
    socket.once("close", () => reject(new Error("it was closed before it had begun")));
    socket.on("data", (bytes: Buffer) => {
      state.received += bytes.length;
      state.lastAt = Date.now();
      started();
    });
    if (as === "tls") socket.once("secureConnect", started);
    if (as === "http") socket.write(`GET /stream HTTP/1.1\r\nHost: ${name}\r\n\r\n`);
    if (as === "echo") entry.timer = setInterval(() => socket.write("x"), 5);
  });
}

/** Opens connections and keeps them, some at a time, so that none waits for a server whose queue is full. Returns how many there are. */
async function openMany(address: string, port: number, count: number): Promise<number> {
  let open = 0;
  for (let left = count; left > 0; left -= openAtOnce)
    open += await openSome(address, port, Math.min(left, openAtOnce));
  return open;
}

async function openSome(address: string, port: number, count: number): Promise<number> {
  const open = await Promise.all(
    Array.from(
      { length: count },
      () =>
        new Promise<boolean>((resolve) => {
          const socket = connect({ host: address, port, timeout: 8_000 });
          many.push(socket);
          socket.on("timeout", () => socket.destroy());
          socket.on("error", () => resolve(false));
          socket.on("close", () => resolve(false));
          socket.once("data", () => {
            socket.setTimeout(0);
            resolve(true);
          });
        }),
    ),
  );
  return open.filter(Boolean).length;
}

/** Bytes a second that come back from an echo server, once it has got going. */
function pump(address: string, port: number, ms: number): Promise<number> {
  return new Promise((resolve, reject) => {
    const chunk = Buffer.alloc(16_384, 1);
    const socket = connect({ host: address, port });
    const warmUpMs = 600;
    let [received, from] = [0, 0];
    const fill = (): void => {
      while (!socket.destroyed && socket.write(chunk));
    };
    socket.on("error", reject);
    socket.on("drain", fill);
    socket.on("connect", fill);
    socket.on("data", (bytes: Buffer) => (received += bytes.length));
    setTimeout(() => (from = received), warmUpMs);
    setTimeout(() => {
      resolve(((received - from) * 1_000) / ms);
      socket.destroy();
    }, warmUpMs + ms);
  });
}

function storm({ targets, atOnce, timeoutMs }: Extract<Order, { kind: "storm" }>): number {
  const result: StormResult = { attempts: 0, opened: {} };
  const entry = { going: true, result, ended: Promise.resolve() as Promise<unknown> };
  const worker = async (first: number): Promise<void> => {
    for (let at = first; entry.going; at++) {
      const [address, port] = targets[at % targets.length] ?? ["", 0];
      result.attempts++;
      const place = `${address}:${port}`;
      if ((await tryTcp(address, port, timeoutMs)) === "open")
        result.opened[place] = { times: (result.opened[place]?.times ?? 0) + 1, lastAt: Date.now() };
      await new Promise((resolve) => setImmediate(resolve)); // a refusal may come within the same turn
    }
  };
  entry.ended = Promise.all(Array.from({ length: atOnce }, (_, i) => worker(i)));
  return storms.push(entry) - 1;
}

async function calm(handle: number): Promise<StormResult> {
  const entry = storms[handle];
  if (entry === undefined) throw new Error("there is no such storm");
  entry.going = false;
  await entry.ended;
  return entry.result;
}

function listen(address: string, port: number): Promise<null> {
  const udp = createSocket(address.includes(":") ? "udp6" : "udp4");
  udp.on("message", (message, { address: from, port: to }) => udp.send(message, to, from));
  udp.bind(port, address);
  const server = createServer((socket) => {
    socket.on("error", () => undefined);
    socket.write("echo\n");
    socket.pipe(socket);
  });
  return new Promise((resolve) => server.listen(port, address, () => resolve(null)));
}

/** Makes a port of this namespace a socket file, which can be reached from every one. */
function relay(path: string, address: string, port: number): Promise<null> {
  const server = createServer((socket) => {
    const other = connect({ host: address, port });
    for (const each of [socket, other]) each.on("error", () => undefined);
    socket.on("close", () => other.destroy());
    other.on("close", () => socket.destroy());
    socket.pipe(other).pipe(socket);
  });
  return new Promise((resolve) => server.listen(path, () => resolve(null)));
}

async function obey(order: Order): Promise<unknown> {
  switch (order.kind) {
    case "try":
      return (order.protocol === "tcp" ? tryTcp : tryUdp)(order.address, order.port, order.timeoutMs);
    case "hold":
      return hold(order);
    case "state":
      return held[order.handle]?.state;
    case "many":
      return openMany(order.address, order.port, order.count);
    case "pump":
      return pump(order.address, order.port, order.ms);
    case "storm":
      return storm(order);
    case "calm":
      return calm(order.handle);
    case "release":
      for (const socket of [...many.splice(0), ...held.map((each) => each.socket)]) socket.destroy();
      return null;
    case "relay":
      return relay(order.path, order.address, order.port);
    case "listen":
      return listen(order.address, order.port);
  }
}

process.on("message", ({ id, order }: { id: number; order: Order }) => {
  obey(order).then(
    (result) => process.send?.({ id, result }),
    (error: unknown) => process.send?.({ id, error: error instanceof Error ? error.message : String(error) }),
  );
});
process.on("disconnect", () => process.exit());
process.send?.({ id: -1, result: "ready" });

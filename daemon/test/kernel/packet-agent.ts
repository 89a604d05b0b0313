import { createSocket } from "node:dgram";
import { connect, createServer, type Socket } from "node:net";

/** What a packet agent is told to do. */
export type PacketOrder =
  /** take all UDP packets at these ports, and answer all TCP connections at one with what they send */
  | { readonly op: "receive"; readonly ports: readonly number[]; readonly tcpPort: number }
  /** send packets from one port, which is another each time */
  | { readonly op: "send"; readonly packets: readonly Packet[] }
  | { readonly op: "connect"; readonly address: string; readonly port: number }
  | { readonly op: "write"; readonly text: string };

export interface Packet {
  readonly address: string;
  readonly port: number;
  readonly text: string;
}

/** What it tells: `ready`, `sent`, `arrived TEXT`, `connected`, `data TEXT`, `error CODE`, `closed`. */
export type PacketNews = string;

const tell = (news: PacketNews): void => void process.send?.(news);
let connection: Socket | null = null;

async function receive(ports: readonly number[], tcpPort: number): Promise<void> {
  for (const port of ports) {
    const socket = createSocket("udp6");
    socket.on("message", (text) => tell(`arrived ${text.toString()}`));
    await new Promise<void>((bound) => socket.bind(port, bound));
  }
  const server = createServer((socket) => socket.on("error", () => undefined).pipe(socket));
  await new Promise<void>((listening) => server.listen(tcpPort, "::", listening));
}

async function send(packets: readonly Packet[]): Promise<void> {
  const sockets = { udp4: createSocket("udp4"), udp6: createSocket("udp6") };
  for (const socket of Object.values(sockets)) socket.on("error", () => undefined);
  for (const { address, port, text } of packets) {
    const socket = sockets[address.includes(":") ? "udp6" : "udp4"];
    await new Promise<void>((sent) => socket.send(text, port, address, () => sent()));
  }
  for (const socket of Object.values(sockets)) socket.close();
}

process.on("message", (order: PacketOrder) => {
  switch (order.op) {
    case "receive":
      void receive(order.ports, order.tcpPort).then(() => tell("receives"));
      break;
    case "send":
      void send(order.packets).then(() => tell("sent"));
      break;
    case "connect":
      connection = connect(order.port, order.address)
        .on("connect", () => tell("connected"))
        .on("data", (text: Buffer) => tell(`data ${text.toString()}`))
        .on("error", ({ code }: NodeJS.ErrnoException) => tell(`error ${code}`))
        .on("close", () => tell("closed"));
      break;
    case "write":
      connection?.write(order.text);
  }
});
process.on("disconnect", () => process.exit(0));
tell("ready");

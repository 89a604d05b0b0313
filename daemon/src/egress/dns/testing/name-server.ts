import { createSocket, type Socket as UdpSocket } from "node:dgram";
import { createServer, type Server } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { AUTHORITATIVE_ANSWER, RECURSION_AVAILABLE, TRUNCATED_RESPONSE, decode, encode, type Answer } from "dns-packet";

/** How a name server answers one question. */
export interface Script {
  readonly answers?: readonly Answer[];
  /** 3 is NXDOMAIN, 2 SERVFAIL */
  readonly code?: number;
  readonly delayMs?: number;
  /** answers by UDP with nothing but the flag that says so */
  readonly truncated?: boolean;
  /** sent first, with another id */
  readonly forged?: readonly Answer[];
  readonly silent?: boolean;
}

interface Asked {
  readonly name: string;
  readonly type: string;
  readonly protocol: "tcp" | "udp";
  readonly port: number;
}

/** An authoritative name server on a loopback address, by UDP and TCP, that does what the test says. Names without a script do not exist. */
export class NameServer {
  readonly asked: Asked[] = [];
  readonly scripts = new Map<string, Script>();
  readonly port: number;
  readonly #udp: UdpSocket;
  readonly #tcp: Server;

  private constructor(udp: UdpSocket, tcp: Server) {
    this.#udp = udp;
    this.#tcp = tcp;
    this.port = udp.address().port;
    udp.on("message", (message, { address, port }) => {
      void this.#answer(message, "udp", port, (reply) => udp.send(reply, port, address, () => undefined));
    });
    tcp.on("connection", (socket) => {
      let bytes = Buffer.alloc(0);
      socket.on("error", () => undefined);
      socket.on("data", (chunk: Buffer) => {
        bytes = Buffer.concat([bytes, chunk]);
        while (bytes.length >= 2 && bytes.length >= 2 + bytes.readUInt16BE(0)) {
          const end = 2 + bytes.readUInt16BE(0);
          void this.#answer(bytes.subarray(2, end), "tcp", socket.remotePort ?? 0, (reply) => {
            const size = Buffer.alloc(2);
            size.writeUInt16BE(reply.length);
            socket.write(Buffer.concat([size, reply]));
          });
          bytes = bytes.subarray(end);
        }
      });
    });
  }

  /** `port` 0 is any one that is free for both protocols. */
  static async start(host: string, port = 0): Promise<NameServer> {
    for (let tries = 10; ; tries -= 1) {
      const udp = createSocket("udp4");
      await new Promise<void>((resolve) => udp.bind(port, host, resolve));
      const tcp = createServer();
      try {
        await new Promise<void>((resolve, reject) => {
          tcp.once("error", reject);
          tcp.listen(udp.address().port, host, resolve);
        });
        return new NameServer(udp, tcp);
      } catch (error) {
        udp.close();
        if (tries === 0) throw error;
      }
    }
  }

  /** Says how questions for a name are answered from now on; `type` as in `A`. */
  on(name: string, type: string, script: Script): void {
    this.scripts.set(`${type} ${name}`, script);
  }

  /** Gives a name IPv4 or IPv6 addresses. */
  give(name: string, addresses: readonly string[], ttl = 60): void {
    for (const type of ["A", "AAAA"] as const) {
      const answers = addresses
        .filter((address) => address.includes(":") === (type === "AAAA"))
        .map((data) => ({ type, name, ttl, data }));
      this.on(name, type, { answers });
    }
  }

  count(name: string): number {
    return this.asked.filter((asked) => asked.name === name).length;
  }

  async close(): Promise<void> {
    await Promise.all([
      new Promise<void>((resolve) => this.#udp.close(resolve)),
      new Promise<void>((resolve) => this.#tcp.close(() => resolve())),
    ]);
  }

  async #answer(message: Buffer, protocol: "tcp" | "udp", port: number, send: (reply: Buffer) => void): Promise<void> {
    const { id = 0, questions = [] } = decode(message);
    const [{ name, type }] = questions as [{ name: string; type: string }];
    this.asked.push({ name, type, protocol, port });
    const script = this.scripts.get(`${type} ${name.toLowerCase()}`) ?? { code: 3 };
    if (script.silent === true) return;
    if (script.delayMs !== undefined) await delay(script.delayMs);
    const flags = AUTHORITATIVE_ANSWER | RECURSION_AVAILABLE;
    const reply = (of: number, answers: readonly Answer[], more = 0): Buffer =>
      encode({ type: "response", id: of, flags: flags | more, questions, answers: [...answers] });
    if (script.forged !== undefined && protocol === "udp") {
      for (let wrong = 1; wrong <= 20; wrong += 1) send(reply((id + wrong) & 0xffff, script.forged));
      await delay(30);
    }
    if (script.truncated === true && protocol === "udp") send(reply(id, [], TRUNCATED_RESPONSE));
    else send(reply(id, script.answers ?? [], script.code ?? 0));
  }
}

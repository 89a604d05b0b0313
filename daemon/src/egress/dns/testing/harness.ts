import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { EgressClient, EgressDecision } from "../../egress-client.js";
import { DnsServer, type DnsServerOptions } from "../dns-server.js";
import type { Learn } from "../responder.js";
import { Resolver } from "../resolver.js";
import { TcpClient, UdpClient } from "./dns-client.js";
import { fakePolicy, type FakeRules } from "./fake-policy.js";
import { NameServer } from "./name-server.js";

type HarnessOptions = Partial<Pick<DnsServerOptions, "ipv6" | "maxConnections">>;

/** A DNS server with a name server above it and sandboxes below, each at an address of its own. */
export class Harness {
  readonly upstream: NameServer;
  readonly server: DnsServer;
  readonly clients = new Map<string, EgressClient>();
  readonly audited: EgressDecision[] = [];
  readonly reported: Error[] = [];
  readonly learned: { sandbox: string; name: string; addresses: readonly string[]; ttlS: number }[] = [];
  /** what happens when addresses are learned, beside noting it */
  onLearn: Learn = () => Promise.resolve();
  /** milliseconds; moved by the test */
  now = 0;
  udpPort = 0;
  tcpPort = 0;
  readonly #folder = mkdtempSync(join(tmpdir(), "dns-server-test-"));
  readonly #open: { close(): void }[] = [];

  private constructor(upstream: NameServer, options: HarnessOptions) {
    this.upstream = upstream;
    const path = join(this.#folder, "resolv.conf");
    writeFileSync(path, "nameserver 127.0.0.1\n");
    const now = (): number => this.now;
    this.server = new DnsServer({
      resolver: new Resolver({ path, port: upstream.port, now }),
      find: (address) => this.clients.get(address),
      learn: async (client, name, answer) => {
        await this.onLearn(client, name, answer);
        this.learned.push({ sandbox: client.sandbox, name, ...answer });
      },
      audit: (decision) => this.audited.push(decision),
      report: (error) => this.reported.push(error),
      now,
      ipv6: false,
      ...options,
    });
  }

  static async start(options: HarnessOptions = {}): Promise<Harness> {
    const harness = new Harness(await NameServer.start("127.0.0.1"), options);
    const { udpPort, tcpPort } = await harness.server.listen("127.0.0.1");
    harness.udpPort = udpPort;
    harness.tcpPort = tcpPort;
    return harness;
  }

  /** Makes a sandbox known at an address; its id is `at-ADDRESS` unless given. */
  know(address: string, rules: FakeRules, sandbox = `at-${address}`): EgressClient {
    const client = { sandbox, address, policy: fakePolicy(rules), secrets: [], authority: null };
    this.clients.set(address, client);
    return client;
  }

  async udp(address: string): Promise<UdpClient> {
    const client = await UdpClient.from(address, this.udpPort);
    this.#open.push(client);
    return client;
  }

  tcp(address: string): TcpClient {
    const client = new TcpClient(address, this.tcpPort);
    this.#open.push({ close: () => client.socket.destroy() });
    return client;
  }

  async close(): Promise<void> {
    for (const client of this.#open) client.close();
    await this.server.close();
    await this.upstream.close();
    rmSync(this.#folder, { recursive: true });
  }
}

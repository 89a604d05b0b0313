import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { join } from "node:path";
import { afterAll, beforeAll } from "vitest";
import { addressNumber, type Subnet, type Subnet6 } from "../../src/core/egress/firewall.js";
import { specialRanges } from "../../src/core/egress/special-ranges.js";
import { renderRuleset, type Facts6, type RulesetFacts } from "../../src/kernel/network/ruleset.js";
import type { LinuxFirewall } from "../../src/kernel/network/firewall.js";
import { TestNetns } from "../../../test/support/netns.js";
import { patience } from "../../../test/support/patience.js";
import { repositoryRoot } from "../../../test/support/root.js";
import type { PacketNews, PacketOrder } from "./packet-agent.js";
import { useKernel, type TestKernel } from "./test-kernel.js";

const waitMs = 10_000 * patience;

export const subnet: Subnet = {
  cidr: "10.200.0.0/14",
  base: addressNumber("10.200.0.0"),
  gateway: "10.200.0.1",
  ipv6: null,
};
export const subnet6: Subnet6 = {
  cidr: "fd00:10:200::/64",
  base: 0xfd000010_02000000n << 64n,
  gateway: "fd00:10:200::1",
};

/** Addresses of the test's own host; everything else is the world's. */
export const hostAddress = "45.10.0.2";
export const hostAddress6 = "2a0a:10::2";
/** UDP ports at which the world takes everything; none that a chain treats in its own way */
export const worldPorts = [7, 22, 123, 5432, 60_000] as const;
export const worldTcpPort = 7_000;

export const facts: RulesetFacts = {
  subnet: subnet.cidr,
  gateway: subnet.gateway,
  ports: { dnsUdp: 30_053, dnsTcp: 30_054, http: 30_080, tls: 30_443, explicit: 30_888 },
  apiPort: null,
  specialRanges: specialRanges[4],
  connectionLimit: 60_000,
  closedInterfaces: [],
  ipv6: null,
};
export const facts6: Facts6 = {
  subnet: subnet6.cidr,
  gateway: subnet6.gateway,
  ports: { http: 30_080, tls: 30_443 },
  isClosed: true,
};

/** A process in a network namespace, which sends and receives there. */
export class PacketAgent {
  readonly news: PacketNews[] = [];
  readonly #child: ChildProcess;

  /** `netns` is the namespace's file. */
  constructor(netns: string) {
    const script = join(repositoryRoot, "build/test/daemon/test/kernel/packet-agent.js");
    const stdio = ["ignore", "inherit", "inherit", "ipc"] as const;
    this.#child = spawn("nsenter", [`--net=${netns}`, process.execPath, script], { stdio: [...stdio] });
    this.#child.on("message", (news: PacketNews) => this.news.push(news));
  }

  /** Gives an order, and waits until it is told so. */
  async order(order: PacketOrder, news: PacketNews): Promise<void> {
    const before = this.news.length;
    this.#child.send(order);
    await this.hear(news, before);
  }

  /** Waits until it tells that, behind so many other news. */
  async hear(news: PacketNews, from = 0): Promise<void> {
    await eventually(
      () => this.news.slice(from).includes(news),
      `"${news}"; told was ${this.news.slice(-5).join(", ")}`,
    );
  }

  async end(): Promise<void> {
    const gone = new Promise((done) => this.#child.once("exit", done));
    this.#child.kill("SIGKILL");
    await gone;
  }
}

export async function eventually(holds: () => boolean | Promise<boolean>, what: string): Promise<void> {
  const deadline = Date.now() + waitMs;
  while (!(await holds())) {
    if (Date.now() > deadline) throw new Error(`it did not come to ${what}`);
    await new Promise((done) => setTimeout(done, 5));
  }
}

export interface NetworkMachine {
  readonly machine: TestKernel;
  readonly firewall: LinuxFirewall;
  /** has every address of the world, and receives at `worldPorts` */
  readonly world: PacketAgent;
  /** Makes a cell with an agent in it. */
  cell(index: number): Promise<PacketAgent>;
  /** Runs a shell command of the host's in a cell's network namespace; returns what it prints. */
  inside(index: number, line: string): string;
  /** Kills it. */
  end(index: number): Promise<void>;
  /** Runs nft where the firewall is, with an input. */
  nft(args: readonly string[], input?: string): string;
}

/** A kernel adapter with a network, in namespaces of the test's own: its cells, a host that forwards, and behind it the world. */
export function useNetwork({ ipv6 = false } = {}): NetworkMachine {
  const machine = useKernel({ subnet: { ...subnet, ipv6: ipv6 ? subnet6 : null } });
  const outside = new TestNetns(join(machine.home, "world"));
  const cells = new Map<number, { readonly agent: PacketAgent; readonly pid: number }>();
  let world: PacketAgent | undefined;
  const nft = (args: readonly string[], input = ""): string => {
    const [program, all] = machine.netns.enter("nft", args);
    return execFileSync(program, all, { input, encoding: "utf8", stdio: ["pipe", "pipe", "pipe"] });
  };
  beforeAll(async () => {
    outside.make();
    connectWorld(machine.netns, outside);
    nft(["-f", "-"], renderRuleset({ ...facts, ipv6: ipv6 ? facts6 : null }));
    world = new PacketAgent(outside.path);
    await world.hear("ready");
    await world.order({ op: "receive", ports: worldPorts, tcpPort: worldTcpPort }, "receives");
  });
  // before the kernel's own, as hooks run backwards
  afterAll(async () => {
    for (const { agent } of cells.values()) await agent.end();
    await world?.end();
    outside[Symbol.dispose]();
  });
  return {
    machine,
    nft,
    get firewall() {
      if (machine.kernel.firewall === null) throw new Error("there is no network");
      return machine.kernel.firewall;
    },
    get world() {
      if (world === undefined) throw new Error("there is no world");
      return world;
    },
    async cell(index) {
      const { pid } = await machine.kernel.makeCell(index, { nestedUserns: false });
      const agent = new PacketAgent(`/proc/${pid}/ns/net`);
      cells.set(index, { agent, pid });
      await agent.hear("ready");
      return agent;
    },
    inside(index, line) {
      const netns = `/proc/${cells.get(index)?.pid}/ns/net`;
      let output = "";
      for (const command of line.split(" && "))
        output = execFileSync("nsenter", [`--net=${netns}`, ...command.split(" ")], { encoding: "utf8" });
      return output;
    },
    async end(index) {
      await cells.get(index)?.agent.end();
      cells.delete(index);
      await machine.kernel.killCell(index);
    },
  };
}

/** The world has every address there is, but those that it reaches the host by. */
function connectWorld(host: TestNetns, world: TestNetns): void {
  // without a shell: that of BusyBox would take its own ip
  const run = (netns: TestNetns, line: string): void => {
    for (const command of line.split(" && ")) netns.run(...(command.split(" ") as [string, ...string[]]));
  };
  run(host, `ip link add up0 type veth peer name down0 netns ${world.path}`);
  run(host, `ip addr add ${hostAddress}/30 dev up0 && ip link set up0 up`);
  run(world, `ip addr add 45.10.0.1/30 dev down0 && ip link set down0 up`);
  run(host, `ip route add default via 45.10.0.1`);
  // but answers to the host have to find their way
  run(
    world,
    `ip rule add pref 10 to ${hostAddress} lookup main && ip rule add pref 20 lookup local && ip rule del pref 0`,
  );
  run(world, `ip route add local 0.0.0.0/0 dev lo`);
  run(host, `ip addr add ${hostAddress6}/64 dev up0 nodad && ip -6 route add default via 2a0a:10::1`);
  run(world, `ip addr add 2a0a:10::1/64 dev down0 nodad`);
  run(
    world,
    `ip -6 rule add pref 10 to ${hostAddress6} lookup main && ip -6 rule add pref 20 lookup local && ip -6 rule del pref 0`,
  );
  run(world, `ip -6 route add local ::/0 dev lo`);
  host.run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding");
  for (const netns of [host, world]) netns.run("sh", "-c", "echo 0 > /proc/sys/net/ipv4/conf/all/rp_filter");
}

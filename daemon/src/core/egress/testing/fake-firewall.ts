import type { SquashError } from "@squash/sdk/errors";
import type { Firewall, FirewallElement, Flow, LinkTraffic, LoggedPacket, Subnet, Subnet6 } from "../firewall.js";
import { addressNumber } from "../firewall.js";
import type { EgressPlane, PlaneClient, PlaneCounters, PlaneSecrets } from "../plane.js";
import { KernelSets, refusal } from "./kernel-sets.js";

/** Steps in order, and those that fail or wait; shared by the fakes of a test. */
export class Steps {
  readonly taken: string[] = [];
  /** the start of a step, and what it throws */
  readonly failing = new Map<string, Error>();
  /** called after each */
  watch: (step: string) => void = () => undefined;
  /** awaited before each */
  before: (step: string) => Promise<void> = () => Promise.resolve();

  async take<T>(step: string, work: () => T): Promise<T> {
    await this.before(step);
    for (const [start, error] of this.failing) {
      if (!step.startsWith(start)) continue;
      this.failing.delete(start);
      throw error;
    }
    this.taken.push(step);
    const result = work();
    this.watch(step);
    return result;
  }
}

export class FakeFirewall implements Firewall {
  readonly subnet: Subnet;
  readonly sets = new KernelSets();
  /** by index */
  readonly tracked = new Map<number, Flow[]>();
  usage: LinkTraffic = { sentBytes: 0, sentPackets: 0, receivedBytes: 0, receivedPackets: 0, refusedPackets: 0 };
  log: (packet: LoggedPacket) => void = () => undefined;
  readonly #steps: Steps;

  constructor(steps: Steps, ipv6: Subnet6 | null = null) {
    this.#steps = steps;
    this.subnet = { cidr: "10.200.0.0/14", base: addressNumber("10.200.0.0"), gateway: "10.200.0.1", ipv6 };
  }

  update(remove: readonly FirewallElement[], add: readonly FirewallElement[]): Promise<void> {
    return this.#steps.take(`update -${remove.length} +${add.length}`, () => this.sets.update(remove, add));
  }

  traffic(index: number): Promise<LinkTraffic> {
    return this.#steps.take(`traffic ${index}`, () => this.usage);
  }

  flows(index: number): Promise<Flow[]> {
    return this.#steps.take(`flows ${index}`, () => this.tracked.get(index) ?? []);
  }

  cut(index: number, flows: readonly Flow[]): Promise<void> {
    return this.#steps.take(`cut ${index} ${flows.length}`, () => {
      const left = (this.tracked.get(index) ?? []).filter((flow) => !flows.includes(flow));
      this.tracked.set(index, left);
    });
  }

  shape(index: number, { toCell, fromCell }: { readonly toCell: number; readonly fromCell: number }): Promise<void> {
    return this.#steps.take(`shape ${index} ${toCell} ${fromCell}`, () => undefined);
  }

  onPacket(listener: (packet: LoggedPacket) => void): void {
    this.log = listener;
  }
}

export class FakePlane implements EgressPlane {
  readonly clients = new Map<string, PlaneClient>();
  figures: PlaneCounters = {
    dnsAllowed: 0,
    dnsRefused: 0,
    dnsLimited: 0,
    openConnections: 0,
    refusedConnections: 0,
  };
  readonly #steps: Steps;

  constructor(steps: Steps) {
    this.#steps = steps;
  }

  set(client: PlaneClient): Promise<void> {
    const { allow } = client.spec;
    const secrets = client.secrets.length === 0 ? "" : ` with ${client.secrets.join(",")}`;
    return this.#steps.take(`set ${client.address} ${client.sandbox} ${allow?.join(",") ?? "open"}${secrets}`, () => {
      this.clients.set(client.address, client);
    });
  }

  setSecrets({ secrets }: PlaneSecrets): Promise<void> {
    return this.#steps.take(`secrets ${secrets.map(({ name }) => name).join(",")}`, () => undefined);
  }

  remove(address: string): Promise<void> {
    return this.#steps.take(`remove ${address}`, () => void this.clients.delete(address));
  }

  counters(address: string): Promise<PlaneCounters> {
    return this.#steps.take(`counters ${address}`, () => this.figures);
  }
}

export const gone: SquashError = refusal("ENOENT");
export const broken: SquashError = refusal("EIO");

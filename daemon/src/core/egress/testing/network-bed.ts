import type { Decision } from "../decision.js";
import { clientElements } from "../elements.js";
import { addressNumber, addressValue, type Flow, type Subnet6 } from "../firewall.js";
import { SandboxNetworks } from "../networks.js";
import type { SecretUse } from "../../secrets/secret-use.js";
import { networkSettings, type NetworkSettings, type NetworkWish } from "../settings.js";
import { policyOf } from "./ask.js";
import { FakeFirewall, FakePlane, Steps } from "./fake-firewall.js";
import { describeElements } from "./kernel-sets.js";

/** of cell 5, which has a sandbox "box" */
export const address = "10.200.0.7";
export const web = "93.184.216.34";

/** The networks of sandboxes on a fake firewall and a fake plane. */
export class NetworkBed {
  readonly steps = new Steps();
  readonly firewall: FakeFirewall;
  readonly plane = new FakePlane(this.steps);
  readonly audited: Decision[] = [];
  readonly uses: SecretUse[] = [];
  readonly networks: SandboxNetworks;

  /** With a subnet of IPv6 or without. */
  constructor(ipv6: Subnet6 | null = null) {
    this.firewall = new FakeFirewall(this.steps, ipv6);
    const { firewall, plane } = this;
    this.networks = new SandboxNetworks({
      firewall,
      plane,
      audit: (decision) => this.audited.push(decision),
      secretEvents: { used: (use) => this.uses.push(use), rotated: () => undefined },
    });
  }

  /** Attaches the sandbox; its steps are forgotten. */
  async attached(allow: string, more: NetworkWish = {}): Promise<void> {
    await this.networks.attach(5, "box", settings(allow, more));
    this.steps.taken.length = 0;
  }

  learn(name: string, ...addresses: string[]): Promise<void> {
    return this.networks.learn(address, name, { addresses, ttlS: 60 });
  }
}

/** Entries apart by spaces; none are everything public. */
export function settings(allow: string, more: NetworkWish = {}): NetworkSettings {
  return networkSettings({ allow_net: allow === "" ? null : allow.split(" "), ...more });
}

/** What the kernel has for the sandbox when only its policy says so. */
export function elementsOf(allow: string, deny = "", connectionsPerS: number | null = null): string[] {
  const policy = policyOf(allow, deny);
  return describeElements(
    clientElements({
      index: 5,
      address: addressNumber(address),
      address6: null,
      policy,
      hasSecrets: false,
      connectionsPerS,
    }),
  );
}

export function learnedOf(to: string): string {
  return `learned 0ac80007${addressNumber(to).toString(16).padStart(8, "0")} 1`;
}

export function flow(to: string, port: number, more: Partial<Flow> = {}): Flow {
  return {
    destination: addressValue(to),
    destinationPort: port,
    sourcePort: 40_000,
    protocol: 6,
    redirected: false,
    ...more,
  };
}

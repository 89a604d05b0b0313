import { SquashError } from "@squash/sdk/errors";
import type { Networks, NetworkUsage } from "../egress/networks.js";
import { parsePolicy } from "../egress/policy.js";
import type { NetworkSettings } from "../egress/settings.js";
import { grantedNames, type SecretAccess } from "../secrets/grants.js";
import type { FakeMachine } from "./fake-machine.js";

/** The networks of a fake machine, which shows them in its state. Links go with their cells. */
export class FakeNetworks implements Networks {
  readonly #machine: FakeMachine;
  /** by index */
  readonly grants = new Map<number, SecretAccess>();

  constructor(machine: FakeMachine) {
    this.#machine = machine;
  }

  check({ policy }: NetworkSettings): void {
    parsePolicy(policy, { subnets: ["10.200.0.0/14"] });
  }

  /** names of all secrets */
  readonly secrets = new Set<string>();

  checkSecrets(names: readonly string[] | null): void {
    const missing = (names ?? []).find((name) => !this.secrets.has(name));
    if (missing !== undefined) throw new SquashError("invalid_request", `Cannot grant secret "${missing}"`);
  }

  granted(access: SecretAccess): string[] {
    return grantedNames(access, this.secrets);
  }

  async grant(index: number, access: SecretAccess): Promise<void> {
    await this.#machine.step("grantSecrets");
    this.grants.set(index, access);
  }

  async attach(index: number, sandbox: string, { policy }: NetworkSettings, access: SecretAccess): Promise<void> {
    await this.#machine.step("attachNetwork");
    this.grants.set(index, access);
    if (!this.#machine.cells.has(index)) throw new Error(`cell ${index} has no link`);
    this.#machine.networks.set(index, `${sandbox} ${policy.allow?.join(",") ?? "open"}`);
  }

  async change(index: number, { policy }: NetworkSettings): Promise<void> {
    await this.#machine.step("changeNetwork");
    const [sandbox] = this.#machine.networks.get(index)?.split(" ") ?? [];
    if (sandbox === undefined) throw new Error(`cell ${index} has no network`);
    this.#machine.networks.set(index, `${sandbox} ${policy.allow?.join(",") ?? "open"}`);
  }

  async detach(index: number): Promise<void> {
    await this.#machine.step("detachNetwork");
    this.#machine.networks.delete(index);
    this.grants.delete(index);
  }

  addressesOf(index: number): { address: string; address6: string } {
    return { address: `10.200.0.${index + 2}`, address6: `fd00::${index + 2}` };
  }

  usage(index: number): Promise<NetworkUsage> {
    return Promise.resolve({
      ...this.addressesOf(index),
      gateway: "10.200.0.1",
      sent_bytes: 1,
      sent_packets: 2,
      received_bytes: 3,
      received_packets: 4,
      connections_open: 5,
      connections_refused: 6,
      dns_allowed: 7,
      dns_refused: 8,
      dns_limited: 9,
    });
  }
}

import { SquashError, isSquashError } from "@squash/sdk/errors";
import type { NetworkInfo } from "@squash/sdk/protocol";
import { KeyedMutex } from "../keyed-mutex.js";
import { grantedNames, noSecrets, type SecretAccess } from "../secrets/grants.js";
import type { RotatedToken } from "../secrets/secret.js";
import type { SecretUse } from "../secrets/secret-use.js";
import type { Decision } from "./decision.js";
import type { EgressPolicy, PolicySpec } from "./egress-policy.js";
import { allElements, icmp, isFlowAllowed, planeClient, protocolNames, type Attached } from "./attached.js";
import { clientElements, difference } from "./elements.js";
import {
  addressNumber,
  addressText,
  addressValue,
  linkAddress,
  linkAddress6,
  type Firewall,
  type FirewallElement,
  type LoggedPacket,
} from "./firewall.js";
import { Learned, type Change } from "./learned.js";
import type { EgressPlane, PlaneEvents, PlaneSecrets, SecretEvents } from "./plane.js";
import { parsePolicy } from "./policy.js";
import type { NetworkLimits, NetworkSettings } from "./settings.js";

/** The networks of all sandboxes. Every method throws `SquashError`. */
export interface Networks {
  /** Throws `invalid_request` for what no sandbox can be given. */
  check(settings: NetworkSettings): void;
  /** Throws `invalid_request` for names of secrets that there are not, or that nothing could be done with. */
  checkSecrets(names: readonly string[] | null): void;
  /** Names of the secrets that a sandbox has at this moment, sorted. */
  granted(access: SecretAccess): string[];
  /** Opens the link of a cell as far as the settings allow; until then nothing passes it. */
  attach(index: number, sandbox: string, settings: NetworkSettings, access: SecretAccess): Promise<void>;
  /** Puts other settings into force: when this returns, what they do not allow is cut, and at no moment more than either allowed was possible. */
  change(index: number, settings: NetworkSettings): Promise<void>;
  /** Puts other secrets into force: when this returns, connections that were given one which is not among them are cut. */
  grant(index: number, access: SecretAccess): Promise<void>;
  /** Closes it; idempotent. */
  detach(index: number): Promise<void>;
  /** The addresses that a cell has; null where there is no network, or no IPv6. */
  addressesOf(index: number): LinkAddresses;
  /** null where there is no network. */
  usage(index: number): Promise<NetworkUsage | null>;
}

export interface LinkAddresses {
  readonly address: string | null;
  readonly address6: string | null;
}

export type NetworkUsage = Omit<NetworkInfo, "allow_net" | "deny_net" | "net_limits">;

/** Keeps firewall and plane in line with what every sandbox may reach. What changes one sandbox's network runs one after another. */
export class SandboxNetworks implements Networks, PlaneEvents {
  readonly #firewall: Firewall;
  readonly #plane: EgressPlane;
  readonly #audit: (decision: Decision) => void;
  readonly #secretEvents: SecretEvents;
  /** names of all secrets */
  #known: ReadonlySet<string> = new Set();
  readonly #attached = new Map<number, Attached>();
  /** by index: what was computed from one state must not meet another */
  readonly #mutex = new KeyedMutex();
  readonly #secretsMutex = new KeyedMutex();

  constructor(parts: {
    readonly firewall: Firewall;
    readonly plane: EgressPlane;
    readonly audit: (decision: Decision) => void;
    readonly secretEvents: SecretEvents;
  }) {
    this.#firewall = parts.firewall;
    this.#plane = parts.plane;
    this.#audit = parts.audit;
    this.#secretEvents = parts.secretEvents;
    this.#firewall.onPacket((packet) => this.#packetLogged(packet));
  }

  check(settings: NetworkSettings): void {
    this.#parse(settings.policy);
  }

  checkSecrets(names: readonly string[] | null): void {
    const missing = (names ?? []).find((name) => !this.#known.has(name));
    if (missing !== undefined)
      throw new SquashError("invalid_request", `Cannot grant secret "${missing}": there is none of that name`, {
        details: { field: "secrets" },
      });
  }

  granted(access: SecretAccess): string[] {
    return grantedNames(access, this.#known);
  }

  attach(index: number, sandbox: string, settings: NetworkSettings, access: SecretAccess = noSecrets): Promise<void> {
    return this.#inTurn(index, async () => {
      const address = linkAddress(this.#firewall.subnet, index);
      const address6 = this.#address6(index);
      const policy = this.#parse(settings.policy);
      const learned = new Learned(address, address6);
      const attached: Attached = {
        index,
        sandbox,
        address,
        address6,
        policy,
        settings,
        access,
        secrets: this.granted(access),
        elements: [],
        learned,
      };
      const elements = this.#elements(attached);
      this.#attached.set(index, attached);
      await this.#plane.set(planeClient(attached));
      if (isLimited(settings.limits)) await this.#shape(index, settings.limits);
      await this.#firewall.update([], elements);
      attached.elements = elements;
    });
  }

  change(index: number, settings: NetworkSettings): Promise<void> {
    return this.#inTurn(index, async () => {
      const attached = this.#mustBeAttached(index);
      const before = attached.settings;
      await this.#putIntoForce(attached, settings);
      try {
        await this.#follow(attached, before);
      } catch (error) {
        // the caller learns that nothing has changed, so that must be so, as far as it is possible
        await this.#putIntoForce(attached, before)
          .then(() => this.#follow(attached, settings))
          .catch(() => undefined);
        throw error;
      }
    });
  }

  grant(index: number, access: SecretAccess): Promise<void> {
    return this.#inTurn(index, async () => {
      const attached = this.#mustBeAttached(index);
      const before = attached.access;
      try {
        await this.#regrant(attached, access);
      } catch (error) {
        // the caller learns that nothing has changed, so that must be so, as far as it is possible
        await this.#regrant(attached, before).catch(() => undefined);
        throw error;
      }
    });
  }

  /** Replaces the secrets that there are, for all sandboxes. One whose firewall does not follow does not keep others from it. */
  setSecrets(secrets: PlaneSecrets): Promise<void> {
    return this.#secretsMutex.run("", async () => {
      this.#known = new Set(secrets.secrets.map(({ name }) => name));
      const failures: unknown[] = [];
      const keep = (error: unknown): number => failures.push(error);
      // values first: what was taken away is cut by this alone
      await this.#plane.setSecrets(secrets).catch(keep);
      for (const index of this.#attached.keys()) {
        await this.#inTurn(index, async () => {
          const attached = this.#attached.get(index);
          if (attached !== undefined) await this.#regrant(attached, attached.access);
        }).catch(keep);
      }
      if (failures.length > 0) throw failures[0];
    });
  }

  detach(index: number): Promise<void> {
    return this.#inTurn(index, async () => {
      const attached = this.#attached.get(index);
      if (attached === undefined) return;
      await this.#apply({ remove: allElements(attached), add: [] });
      attached.elements = [];
      attached.learned = new Learned(attached.address, attached.address6);
      // the next cell of this number has its address, and must not inherit what was tracked
      const [, flows] = await Promise.all([
        this.#plane.remove(addressText(attached.address)),
        this.#firewall.flows(index),
      ]);
      await this.#firewall.cut(index, flows);
      // last, so that a call after a failure does all of it
      this.#attached.delete(index);
    });
  }

  addressesOf(index: number): LinkAddresses & { readonly address: string } {
    const address6 = this.#address6(index);
    return {
      address: addressText(linkAddress(this.#firewall.subnet, index)),
      address6: address6 === null ? null : addressText(address6),
    };
  }

  async usage(index: number): Promise<NetworkUsage> {
    const { address } = this.#mustBeAttached(index);
    const [traffic, flows, counters] = await Promise.all([
      this.#firewall.traffic(index),
      this.#firewall.flows(index),
      this.#plane.counters(addressText(address)),
    ]);
    return {
      ...this.addressesOf(index),
      gateway: this.#firewall.subnet.gateway,
      sent_bytes: traffic.sentBytes,
      sent_packets: traffic.sentPackets,
      received_bytes: traffic.receivedBytes,
      received_packets: traffic.receivedPackets,
      connections_open: flows.filter(({ destinationPort, redirected }) => !(redirected && destinationPort === 53))
        .length,
      connections_refused: traffic.refusedPackets + counters.refusedConnections,
      dns_allowed: counters.dnsAllowed,
      dns_refused: counters.dnsRefused,
      dns_limited: counters.dnsLimited,
    };
  }

  async learn(
    client: string,
    name: string,
    answer: { readonly addresses: readonly string[]; readonly ttlS: number },
  ): Promise<void> {
    const index = addressNumber(client) - linkAddress(this.#firewall.subnet, 0);
    await this.#inTurn(index, async () => {
      const attached = this.#attached.get(index);
      if (attached === undefined)
        throw new SquashError("sandbox_not_found", `Cannot use an answer for ${client}: no sandbox has it`);
      const { policy, learned } = attached;
      if (!policy.enforcesNames) return;
      const lookup = policy.lookup(name);
      // the policy may have become another one since the resolver asked
      if (!lookup.allowed) throw new SquashError("invalid_request", `Cannot use an answer for ${name}: ${lookup.rule}`);
      const destinations = answer.addresses
        .map(addressValue)
        .filter((destination) => typeof destination === "number" || attached.address6 !== null);
      await this.#applyLearned(learned.add(policy, name, { destinations, ttlS: answer.ttlS }, Date.now()));
    });
  }

  decided(decision: Decision): void {
    this.#audit(decision);
  }

  used(use: SecretUse): void {
    this.#secretEvents.used(use);
  }

  rotated(token: RotatedToken): void {
    this.#secretEvents.rotated(token);
  }

  /** Tells a firewall whose sets were emptied of all sandboxes again. */
  async restore(): Promise<void> {
    for (const index of this.#attached.keys()) {
      await this.#inTurn(index, async () => {
        const attached = this.#attached.get(index);
        if (attached !== undefined) await this.#apply({ remove: [], add: allElements(attached) });
      });
    }
  }

  /** Lets go of addresses that no name stands for any more; to be called every few seconds. One that fails does not keep others from it. */
  async expire(): Promise<void> {
    const failures: unknown[] = [];
    for (const index of this.#attached.keys()) {
      await this.#inTurn(index, () => this.#expire(index)).catch((error: unknown) => failures.push(error));
    }
    if (failures.length > 0) throw failures[0];
  }

  /** Addresses that names have resolved to, for all sandboxes. */
  get learned(): number {
    return [...this.#attached.values()].reduce((sum, { learned }) => sum + learned.size, 0);
  }

  #parse(spec: PolicySpec): EgressPolicy {
    const { cidr, ipv6 } = this.#firewall.subnet;
    return parsePolicy(spec, { subnets: ipv6 === null ? [cidr] : [cidr, ipv6.cidr] });
  }

  #address6(index: number): bigint | null {
    const { ipv6 } = this.#firewall.subnet;
    return ipv6 === null ? null : linkAddress6(ipv6, index);
  }

  #elements({ index, address, address6, policy, secrets, settings }: Attached): FirewallElement[] {
    const { connectionsPerS } = settings.limits;
    return clientElements({ index, address, address6, policy, hasSecrets: secrets.length > 0, connectionsPerS });
  }

  /** The plane first: it must not go on giving what is taken away, and gives nothing by itself to whom the firewall does not lead to it. */
  async #regrant(attached: Attached, access: SecretAccess): Promise<void> {
    const secrets = this.granted(access);
    const isSame = access.ca === attached.access.ca && secrets.join() === attached.secrets.join();
    Object.assign(attached, { access, secrets });
    if (!isSame) await this.#plane.set(planeClient(attached));
    const elements = this.#elements(attached);
    await this.#apply(difference(attached.elements, elements));
    attached.elements = elements;
  }

  async #shape(index: number, { downKbit, upKbit }: NetworkLimits): Promise<void> {
    await this.#firewall.shape(index, { toCell: bytesPerS(downKbit), fromCell: bytesPerS(upKbit) });
  }

  #inTurn(index: number, work: () => Promise<void>): Promise<void> {
    return this.#mutex.run(String(index), work);
  }

  async #expire(index: number): Promise<void> {
    const attached = this.#attached.get(index);
    const now = Date.now();
    if (!attached?.learned.hasEnded(now)) return;
    const inUse = new Set((await this.#firewall.flows(index)).map(({ destination }) => destination));
    await this.#applyLearned(attached.learned.expire(attached.policy, (destination) => inUse.has(destination), now));
  }

  /** New connections are decided by the settings when this returns. When it throws, nothing has changed. */
  async #putIntoForce(attached: Attached, settings: NetworkSettings): Promise<void> {
    const policy = this.#parse(settings.policy);
    const elements = this.#elements({ ...attached, policy, settings });
    const own = difference(attached.elements, elements);
    const { remove, add, undo } = attached.learned.repolicy(policy, Date.now());
    await this.#applyLearned({ remove: [...own.remove, ...remove], add: [...own.add, ...add], undo });
    Object.assign(attached, { policy, settings, elements });
  }

  /** What follows when settings have come into force in place of `before`: the plane, what is tracked, the limits. */
  async #follow(attached: Attached, before: NetworkSettings): Promise<void> {
    const { index, settings } = attached;
    // what the plane has ended meanwhile may be listed still; only what does not pass through it is judged here
    const [, flows] = await Promise.all([this.#plane.set(planeClient(attached)), this.#firewall.flows(index)]);
    await this.#firewall.cut(
      index,
      flows.filter((flow) => !isFlowAllowed(attached, flow)),
    );
    if (!sameRates(before.limits, settings.limits)) await this.#shape(index, settings.limits);
  }

  async #applyLearned(change: Change): Promise<void> {
    try {
      await this.#apply(change);
    } catch (error) {
      change.undo();
      throw error;
    }
  }

  /** One transaction; where the kernel has dropped something by itself, what is to be removed goes one by one, then the rest. */
  async #apply({ remove, add }: Omit<Change, "undo">): Promise<void> {
    if (remove.length + add.length === 0) return;
    try {
      await this.#firewall.update(remove, add);
    } catch (error) {
      if (!isMissing(error)) throw error;
      for (const element of remove) {
        await this.#firewall.update([element], []).catch((cause: unknown) => {
          if (!isMissing(cause)) throw cause;
        });
      }
      await this.#firewall.update([], add);
    }
  }

  #packetLogged({ index, allowed, destination, port, protocol }: LoggedPacket): void {
    const attached = this.#attached.get(index);
    if (attached === undefined) return;
    const name = protocolNames[protocol];
    const address = addressText(destination);
    const verdict = name === undefined ? null : attached.policy.connectByAddress(address, port, name);
    const rule = verdict?.allowed === allowed ? verdict.rule : allowed ? "resolved name" : "protocol or limit";
    this.#audit({
      sandbox: attached.sandbox,
      kind: "connection",
      name: null,
      address,
      port: name === undefined ? null : port,
      protocol: name ?? (icmp.includes(protocol) ? "icmp" : "other"),
      allowed,
      rule,
    });
  }

  #mustBeAttached(index: number): Attached {
    const attached = this.#attached.get(index);
    if (attached === undefined)
      throw new SquashError("internal", `Cannot find the network of cell ${index}: it has none`);
    return attached;
  }
}

function isLimited({ downKbit, upKbit }: NetworkLimits): boolean {
  return downKbit !== null || upKbit !== null;
}

function sameRates(a: NetworkLimits, b: NetworkLimits): boolean {
  return a.downKbit === b.downKbit && a.upKbit === b.upKbit;
}

function bytesPerS(kbit: number | null): number {
  return kbit === null ? 0 : Math.round(kbit * 125);
}

function isMissing(error: unknown): boolean {
  return isSquashError(error) && error.details["errno"] === "ENOENT";
}

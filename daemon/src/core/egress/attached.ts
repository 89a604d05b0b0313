import type { SecretAccess } from "../secrets/grants.js";
import type { EgressPolicy } from "./egress-policy.js";
import { addressText, type FirewallElement, type Flow } from "./firewall.js";
import type { Learned } from "./learned.js";
import type { PlaneClient } from "./plane.js";
import type { NetworkSettings } from "./settings.js";

/** The network of one sandbox, as firewall and plane have been told of it. */
export interface Attached {
  readonly index: number;
  readonly sandbox: string;
  readonly address: number;
  readonly address6: bigint | null;
  policy: EgressPolicy;
  settings: NetworkSettings;
  access: SecretAccess;
  /** names of the secrets that it has at this moment */
  secrets: readonly string[];
  elements: readonly FirewallElement[];
  learned: Learned;
}

/** of both families */
export const icmp: readonly number[] = [1, 58];
export const protocolNames: Readonly<Record<number, "tcp" | "udp">> = { 6: "tcp", 17: "udp" };

export function planeClient({ sandbox, address, address6, settings, access, secrets }: Attached): PlaneClient {
  return {
    sandbox,
    address: addressText(address),
    address6: address6 === null ? null : addressText(address6),
    spec: settings.policy,
    secrets,
    ca: access.ca,
  };
}

export function allElements({ elements, learned }: Attached): FirewallElement[] {
  return [...elements, ...learned.elements()];
}

/** Whether a tracked connection may go on. */
export function isFlowAllowed({ policy, learned }: Attached, flow: Flow): boolean {
  if (flow.redirected) return !policy.silent; // the plane has cut what it does not allow
  const protocol = protocolNames[flow.protocol];
  const address = addressText(flow.destination);
  if (protocol === undefined)
    return (
      icmp.includes(flow.protocol) && policy.open && !policy.enforcesNames && policy.acceptsAnswer(address).allowed
    );
  if (policy.connectByAddress(address, flow.destinationPort, protocol).allowed) return true;
  return (
    policy.enforcesNames &&
    learned.has(flow.destination) &&
    policy.connectResolved(address, flow.destinationPort, protocol).allowed
  );
}

import type { NetLimits } from "@squash/sdk/protocol";
import type { PolicySpec } from "./egress-policy.js";

/** What a sandbox may do on the network, as it is kept in its record. */
export interface NetworkSettings {
  readonly policy: PolicySpec;
  readonly limits: NetworkLimits;
}

/** null is no limit. */
export interface NetworkLimits {
  readonly downKbit: number | null;
  readonly upKbit: number | null;
  readonly connectionsPerS: number | null;
}

/** As the API has it: `allow_net` null or empty for everything public. */
export interface NetworkWish {
  readonly allow_net?: readonly string[] | null;
  readonly deny_net?: readonly string[];
  readonly net_limits?: NetLimits;
}

export function networkSettings({
  allow_net: allow = null,
  deny_net: deny = [],
  net_limits: limits = {},
}: NetworkWish): NetworkSettings {
  return {
    policy: { allow: allow === null || allow.length === 0 ? null : allow, deny },
    limits: {
      downKbit: limits.down_kbit ?? null,
      upKbit: limits.up_kbit ?? null,
      connectionsPerS: limits.connections_per_s ?? null,
    },
  };
}

export function networkWish({
  policy,
  limits,
}: NetworkSettings): Required<{ allow_net: string[] | null; deny_net: string[]; net_limits: NetLimits }> {
  return {
    allow_net: policy.allow === null ? null : [...policy.allow],
    deny_net: [...policy.deny],
    net_limits: {
      ...(limits.downKbit !== null && { down_kbit: limits.downKbit }),
      ...(limits.upKbit !== null && { up_kbit: limits.upKbit }),
      ...(limits.connectionsPerS !== null && { connections_per_s: limits.connectionsPerS }),
    },
  };
}

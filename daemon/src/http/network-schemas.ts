import { Type, type Static } from "@sinclair/typebox";
import type { NetLimits, NetworkDecision, NetworkInfo, NetworkRequest } from "@squash/sdk/protocol";
import { bounds } from "../core/validate.js";
import { closed, nullable, time, type Same } from "./schema-parts.js";

const entry = Type.String({
  maxLength: 300,
  description: "a host name, *.example.org, an address or a CIDR, with an optional :port or :port/udp",
});

export const allowNet = nullable(
  Type.Array(entry, {
    maxItems: bounds.netEntries,
    description: 'what may be reached; ["none"] = nothing at all; null or [] = everything public',
  }),
);

export const denyNet = Type.Array(entry, {
  maxItems: bounds.netEntries,
  description: "what may not be reached; the most precise entry of both lists decides, between equals this list",
});

const bandwidth = { minimum: bounds.netKbit.min, maximum: bounds.netKbit.max };

export const netLimits = Type.Object(
  {
    down_kbit: Type.Optional(Type.Integer({ ...bandwidth, description: "towards the sandbox, 1,000 bits a second" })),
    up_kbit: Type.Optional(Type.Integer({ ...bandwidth, description: "from the sandbox, 1,000 bits a second" })),
    connections_per_s: Type.Optional(
      Type.Integer({ minimum: 1, maximum: bounds.connectionsPerS, description: "new connections a second" }),
    ),
  },
  { ...closed, description: "an absent field is no limit" },
);
true satisfies Same<Static<typeof netLimits>, NetLimits>;

export const networkBody = Type.Object(
  { allow_net: allowNet, deny_net: Type.Optional(denyNet), net_limits: Type.Optional(netLimits) },
  { $id: "NetworkRequest", ...closed },
);
true satisfies Same<Static<typeof networkBody>, NetworkRequest>;

export const networkInfo = Type.Object(
  {
    allow_net: nullable(Type.Array(Type.String())),
    deny_net: Type.Array(Type.String()),
    net_limits: netLimits,
    address: Type.String({ description: "the sandbox's IPv4 address" }),
    address6: nullable(Type.String({ description: "its IPv6 address; null where sandboxes have none" })),
    gateway: Type.String({ description: "also its name server" }),
    sent_bytes: Type.Integer(),
    sent_packets: Type.Integer(),
    received_bytes: Type.Integer(),
    received_packets: Type.Integer(),
    connections_open: Type.Integer({ description: "that the host tracks at this moment" }),
    connections_refused: Type.Integer({ description: "by the proxy, and packets refused by the firewall" }),
    dns_allowed: Type.Integer(),
    dns_refused: Type.Integer(),
    dns_limited: Type.Integer({ description: "beyond the rate limit, and not answered" }),
  },
  { $id: "Network" },
);
true satisfies Same<Static<typeof networkInfo>, NetworkInfo>;

const kinds: NetworkDecision["kind"][] = ["dns", "http", "tls", "connection"];
const protocols: NetworkDecision["protocol"][] = ["tcp", "udp", "icmp", "other"];

export const networkDecision = Type.Object(
  {
    time: time("when it was made"),
    sandbox: Type.String(),
    kind: Type.Unsafe<NetworkDecision["kind"]>({ type: "string", enum: kinds, description: "who decided" }),
    name: nullable(Type.String()),
    address: nullable(Type.String()),
    port: nullable(Type.Integer()),
    protocol: Type.Unsafe<NetworkDecision["protocol"]>({ type: "string", enum: protocols }),
    verdict: Type.Union([Type.Literal("allowed"), Type.Literal("refused")]),
    rule: Type.String({ description: "the entry that decided, or the reason" }),
  },
  { $id: "NetworkDecision" },
);
true satisfies Same<Static<typeof networkDecision>, NetworkDecision>;

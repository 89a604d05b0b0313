import type { Server } from "node:net";
import { join } from "node:path";
import type { NetworkDecision } from "@squash/sdk/protocol";
import type { Config } from "./config.js";
import type { Decision } from "./core/egress/decision.js";
import { SandboxNetworks, type Networks } from "./core/egress/networks.js";
import { NoNetworks } from "./core/egress/no-networks.js";
import { specialRanges } from "./core/egress/special-ranges.js";
import { ThreadPlane } from "./egress/plane.js";
import type { LinuxFirewall } from "./kernel/network/firewall.js";
import { Forwarding } from "./kernel/network/forwarding.js";
import { DecisionLog } from "./store/decision-log.js";

const expireMs = 10_000;
/** connections of one sandbox that the host tracks at once; the host's own table has room for many sandboxes then */
const connectionLimit = 2_048;

interface NetworkOptions {
  readonly config: Config;
  readonly report: (error: unknown) => void;
  /** from `lockNetwork`, to be held until the end; null where there is no network */
  readonly lock: Server | null;
}

/** The parts of the sandboxes' network, connected: firewall, plane, log. Without a subnet there is only the log. */
export class DaemonNetwork {
  readonly networks: Networks;
  readonly decisions: DecisionLog;
  readonly #firewall: LinuxFirewall | null;
  readonly #plane: ThreadPlane | null;
  readonly #lock: Server | null;
  readonly #timer: NodeJS.Timeout | undefined;
  readonly #forwarding: Forwarding;

  private constructor(
    networks: Networks,
    decisions: DecisionLog,
    parts: { firewall: LinuxFirewall; plane: ThreadPlane; lock: Server | null; timer: NodeJS.Timeout } | null,
    forwarding: Forwarding,
  ) {
    this.networks = networks;
    this.decisions = decisions;
    this.#firewall = parts?.firewall ?? null;
    this.#plane = parts?.plane ?? null;
    this.#lock = parts?.lock ?? null;
    this.#timer = parts?.timer;
    this.#forwarding = forwarding;
  }

  /** Loads the firewall's rules and starts the plane. Throws `SquashError` that says what this machine lacks. */
  static async start(firewall: LinuxFirewall | null, { config, report, lock }: NetworkOptions): Promise<DaemonNetwork> {
    const decisions = new DecisionLog(join(config.dataDir, "audit"), { report });
    const forwarding = new Forwarding(config.runDir);
    if (firewall === null) return new DaemonNetwork(new NoNetworks(), decisions, null, forwarding);
    const { cidr, gateway } = firewall.subnet;
    const plane = await ThreadPlane.start({
      gateway,
      subnet: cidr,
      resolvConf: config.resolvConf,
      resolverPort: 53,
      report,
    });
    await firewall.load({
      ports: plane.ports,
      apiPort: config.listen.kind === "tcp" ? config.listen.port : null,
      specialRanges: specialRanges[4],
      connectionLimit,
      closedInterfaces: await forwarding.open(),
    });
    const audit = (decision: Decision): void => decisions.append(logged(decision));
    const networks = new SandboxNetworks({ firewall, plane, audit });
    plane.connect(networks);
    const timer = setInterval(() => {
      networks.expire().catch(report);
      leaveToOthers(firewall, forwarding).catch(report);
    }, expireMs).unref();
    return new DaemonNetwork(networks, decisions, { firewall, plane, lock, timer }, forwarding);
  }

  /** Ends the plane; with `forget`, which is right only when no sandbox is left, nothing of the network stays on the host. */
  async close({ forget }: { readonly forget: boolean }): Promise<void> {
    clearInterval(this.#timer);
    await this.#plane?.close();
    if (forget && this.#firewall !== null) {
      await this.#firewall.unload();
      await this.#forwarding.close();
    }
    await this.decisions.close();
    this.#lock?.close();
  }
}

/** Once something else on the machine switches forwarding on, keeping interfaces closed would break that. */
async function leaveToOthers(firewall: LinuxFirewall, forwarding: Forwarding): Promise<void> {
  if (await forwarding.handOver()) await firewall.openInterfaces();
}

function logged({ sandbox, kind, name, address, port, protocol, allowed, rule }: Decision): NetworkDecision {
  const verdict = allowed ? "allowed" : "refused";
  return { time: new Date().toISOString(), sandbox, kind, name, address, port, protocol, verdict, rule };
}

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
import { lockNetwork } from "./kernel/network/lock.js";
import { DecisionLog } from "./store/decision-log.js";

const expireMs = 10_000;
const restoreDelayMs = 500;
/** connections of one sandbox that the host tracks at once; the host's own table has room for many sandboxes then */
const connectionLimit = 2_048;

interface NetworkOptions {
  readonly config: Config;
  readonly report: (error: unknown) => void;
}

/** The parts of the sandboxes' network, connected: firewall, plane, log. Without a subnet there is only the log. */
export class DaemonNetwork {
  readonly networks: Networks;
  readonly decisions: DecisionLog;
  /** Loads the rules again, when somebody may have changed them behind a new sq-host's back. */
  readonly restore: () => void;
  readonly #firewall: LinuxFirewall | null;
  readonly #plane: ThreadPlane | null;
  readonly #lock: Server | null;
  readonly #timer: NodeJS.Timeout | undefined;
  readonly #forwarding: Forwarding;

  private constructor(
    networks: Networks,
    decisions: DecisionLog,
    parts: {
      firewall: LinuxFirewall;
      plane: ThreadPlane;
      lock: Server;
      timer: NodeJS.Timeout;
      restore: () => void;
    } | null,
    forwarding: Forwarding,
  ) {
    this.networks = networks;
    this.decisions = decisions;
    this.#firewall = parts?.firewall ?? null;
    this.#plane = parts?.plane ?? null;
    this.#lock = parts?.lock ?? null;
    this.#timer = parts?.timer;
    this.restore = parts?.restore ?? (() => undefined);
    this.#forwarding = forwarding;
  }

  /** Loads the firewall's rules and starts the plane. Throws `SquashError` that says what this machine lacks. */
  static async start(firewall: LinuxFirewall | null, { config, report }: NetworkOptions): Promise<DaemonNetwork> {
    const decisions = new DecisionLog(join(config.dataDir, "audit"), { report });
    const forwarding = new Forwarding(config.runDir);
    if (firewall === null) return new DaemonNetwork(new NoNetworks(), decisions, null, forwarding);
    const lock = await lockNetwork();
    const { cidr, gateway } = firewall.subnet;
    const plane = await ThreadPlane.start({
      gateway,
      subnet: cidr,
      resolvConf: config.resolvConf,
      resolverPort: 53,
      report,
    });
    const load = async (): Promise<void> =>
      firewall.load({
        ports: plane.ports,
        apiPort: config.listen.kind === "tcp" ? config.listen.port : null,
        specialRanges: specialRanges[4],
        connectionLimit,
        closedInterfaces: await forwarding.open(),
      });
    await load();
    const audit = (decision: Decision): void => decisions.append(logged(decision));
    const networks = new SandboxNetworks({ firewall, plane, audit });
    plane.connect(networks);
    const restore = restorer(async () => {
      await load();
      await networks.restore();
      await firewall.open();
    }, report);
    firewall.onGone(() => {
      report("the firewall's rules were removed by somebody else, and are loaded again; links are closed meanwhile");
      restore();
    });
    const timer = setInterval(() => {
      networks.expire().catch(report);
      leaveToOthers(firewall, forwarding).catch(report);
    }, expireMs).unref();
    return new DaemonNetwork(networks, decisions, { firewall, plane, lock, timer, restore }, forwarding);
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

/** Runs `work` when asked to, once more when asked meanwhile, and again a moment later when it fails. */
function restorer(work: () => Promise<void>, report: (error: unknown) => void): () => void {
  let running = false;
  let again = false;
  const start = (): void => {
    if (running) {
      again = true;
      return;
    }
    running = true;
    work()
      .catch((error: unknown) => {
        report(error);
        again = true;
        return new Promise((resolve) => setTimeout(resolve, restoreDelayMs).unref());
      })
      .finally(() => {
        running = false;
        if (again) start();
        again = false;
      });
  };
  return start;
}

/** Once something else on the machine switches forwarding on, keeping interfaces closed would break that. */
async function leaveToOthers(firewall: LinuxFirewall, forwarding: Forwarding): Promise<void> {
  if (await forwarding.handOver()) await firewall.openInterfaces();
}

function logged({ sandbox, kind, name, address, port, protocol, allowed, rule }: Decision): NetworkDecision {
  const verdict = allowed ? "allowed" : "refused";
  return { time: new Date().toISOString(), sandbox, kind, name, address, port, protocol, verdict, rule };
}

import type { Server } from "node:net";
import { join } from "node:path";
import type { NetworkDecision } from "@squash/sdk/protocol";
import type { Config } from "./config.js";
import type { Decision } from "./core/egress/decision.js";
import { SandboxNetworks, type Networks } from "./core/egress/networks.js";
import { NoNetworks } from "./core/egress/no-networks.js";
import type { PlaneSecrets, SecretEvents } from "./core/egress/plane.js";
import { specialRanges } from "./core/egress/special-ranges.js";
import type { Emit } from "./core/events.js";
import { ThreadPlane } from "./egress/plane.js";
import type { LinuxFirewall } from "./kernel/network/firewall.js";
import { Forwarding } from "./kernel/network/forwarding.js";
import { Forwarding6 } from "./kernel/network/forwarding6.js";
import { DecisionLog } from "./store/decision-log.js";

const expireMs = 10_000;
const restoreDelayMs = 500;
/** connections of one sandbox that the host tracks at once; the host's own table has room for many sandboxes then */
const connectionLimit = 2_048;

interface NetworkOptions {
  readonly config: Config;
  readonly emit: Emit;
  readonly secretEvents: SecretEvents;
  /** told of failures that no caller learns of, and of what was coped with, as a text */
  readonly report: (error: unknown) => void;
  /** from `lockNetwork`, to be held until the end; null where there is no network */
  readonly lock: Server | null;
}

/** What there is only with a network. */
interface Running {
  readonly networks: SandboxNetworks;
  readonly firewall: LinuxFirewall;
  readonly plane: ThreadPlane;
  readonly lock: Server | null;
  readonly timer: NodeJS.Timeout;
  readonly forwarding: Forwarding;
  /** null where sandboxes have no IPv6 */
  readonly forwarding6: Forwarding6 | null;
  readonly restore: () => void;
}

/** The parts of the sandboxes' network, connected: firewall, plane, log. Without a subnet there is only the log. */
export class DaemonNetwork {
  readonly networks: Networks;
  readonly decisions: DecisionLog;
  readonly #running: Running | null;

  private constructor(decisions: DecisionLog, running: Running | null) {
    this.decisions = decisions;
    this.#running = running;
    this.networks = running?.networks ?? new NoNetworks();
  }

  /** Loads the firewall's rules and starts the plane. Throws `SquashError` that says what this machine lacks. */
  static async start(firewall: LinuxFirewall | null, options: NetworkOptions): Promise<DaemonNetwork> {
    const { config, emit, secretEvents, report, lock } = options;
    const decisions = new DecisionLog(join(config.dataDir, "audit"), { report });
    if (firewall === null) return new DaemonNetwork(decisions, null);
    const { cidr, gateway, ipv6 } = firewall.subnet;
    const apiPort = config.listen.kind === "tcp" ? config.listen.port : null;
    const plane = await ThreadPlane.start({
      gateway,
      gateway6: ipv6?.gateway ?? null,
      subnets: ipv6 === null ? [cidr] : [cidr, ipv6.cidr],
      resolvConf: config.resolvConf,
      resolverPort: 53,
      apiPort,
      extraRoots: config.extraCaFile === "" ? null : config.extraCaFile,
      report,
    });
    const forwarding = new Forwarding(config.runDir);
    const forwarding6 = ipv6 === null ? null : new Forwarding6(config.runDir);
    const load = async (): Promise<void> =>
      firewall.load({
        ports: plane.ports,
        apiPort,
        specialRanges: specialRanges[4],
        connectionLimit,
        closedInterfaces: await forwarding.open(),
        isClosed6: (await forwarding6?.open()) ?? false,
      });
    await load();
    const audit = (decision: Decision): void => {
      decisions.append(logged(decision));
      emit({ type: "network.decided", kind: decision.kind, allowed: decision.allowed });
    };
    const networks = new SandboxNetworks({ firewall, plane, audit, secretEvents });
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
      leaveToOthers(firewall, forwarding, forwarding6).catch(report);
    }, expireMs).unref();
    return new DaemonNetwork(decisions, {
      networks,
      firewall,
      plane,
      lock,
      timer,
      forwarding,
      forwarding6,
      restore,
    });
  }

  /** Addresses that names have resolved to, for all sandboxes. */
  get learned(): number {
    return this.#running?.networks.learned ?? 0;
  }

  /** Replaces the secrets that the proxy puts in. */
  async setSecrets(secrets: PlaneSecrets): Promise<void> {
    await this.#running?.networks.setSecrets(secrets);
  }

  /** Loads the rules again, which somebody may have changed behind a new sq-host's back. */
  restore(): void {
    this.#running?.restore();
  }

  /** Ends the plane; with `forget`, which is right only when no sandbox is left, nothing of the network stays on the host. */
  async close({ forget }: { readonly forget: boolean }): Promise<void> {
    const running = this.#running;
    if (running !== null) {
      clearInterval(running.timer);
      running.firewall.onGone(() => undefined);
      await running.plane.close();
      if (forget) {
        await running.firewall.unload();
        await running.forwarding.close();
        await running.forwarding6?.close();
      }
    }
    await this.decisions.close();
    running?.lock?.close();
  }
}

/** Runs `work` when asked to, once more when asked meanwhile, and again a moment later when it fails. */
function restorer(work: () => Promise<void>, report: (error: unknown) => void): () => void {
  let running = false;
  let again = false;
  const run = async (): Promise<void> => {
    do {
      again = false;
      try {
        await work();
      } catch (error) {
        report(error);
        again = true;
        await new Promise((resolve) => setTimeout(resolve, restoreDelayMs));
      }
    } while (again);
    running = false;
  };
  return () => {
    again = true;
    if (running) return;
    running = true;
    void run();
  };
}

/** Once something else on the machine switches forwarding on, keeping interfaces closed would break that. */
async function leaveToOthers(
  firewall: LinuxFirewall,
  forwarding: Forwarding,
  forwarding6: Forwarding6 | null,
): Promise<void> {
  if (await forwarding.handOver()) await firewall.openInterfaces();
  if ((await forwarding6?.handOver()) === true) await firewall.openInterfaces6();
}

function logged({ sandbox, kind, name, address, port, protocol, allowed, rule }: Decision): NetworkDecision {
  const verdict = allowed ? "allowed" : "refused";
  return { time: new Date().toISOString(), sandbox, kind, name, address, port, protocol, verdict, rule };
}

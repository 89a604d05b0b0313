import type { ProxyHostCalls, ProxyHostOptions } from "./fault-proxy-host.js";
import { Hosted, type Enter } from "./hosted.js";
import type { Fault, Rule, RuleCount } from "./proxy/rules.js";

/** A fault that is switched on. */
export interface ActiveFault extends AsyncDisposable {
  /** how often it was of use so far */
  count(): Promise<Omit<RuleCount, "id">>;
  /** Switches it off; what is stalled by it stays so. Idempotent. */
  [Symbol.asyncDispose](): Promise<void>;
}

export interface FaultProxyOptions {
  /** default: any */
  readonly port?: number;
  /** path of a socket to listen on in place of a port, which is reached from all network namespaces */
  readonly socket?: string;
  /** where it is to run, as with `S3ServerOptions` */
  readonly enter?: Enter;
}

/**
 * A proxy on loopback between a client and an HTTP server, with faults that tests switch on. In a process of its own. Two of them lead into a
 * network namespace: one outside on a socket, and one inside that has the first as its server.
 */
export class FaultProxy implements AsyncDisposable {
  /** "http://127.0.0.1:port", or "unix:/path" for other proxies */
  readonly endpoint: string;
  readonly #hosted: Hosted<ProxyHostCalls>;

  private constructor(hosted: Hosted<ProxyHostCalls>, at: number | string) {
    this.#hosted = hosted;
    this.endpoint = typeof at === "string" ? `unix:${at}` : `http://127.0.0.1:${at}`;
  }

  /** `server` may be any that has an endpoint, of http only. */
  static async start(
    server: { readonly endpoint: string },
    { port = 0, socket, enter }: FaultProxyOptions = {},
  ): Promise<FaultProxy> {
    const options: ProxyHostOptions = { target: server.endpoint, at: socket ?? port };
    const script = "s3/fault-proxy-host.js";
    const { hosted, ready } = await Hosted.start<ProxyHostCalls, number | string>(script, options, enter);
    return new FaultProxy(hosted, ready);
  }

  /** Switches a fault on for the requests that the rest says; default: for all. */
  async inject(
    fault: Fault,
    { path, ...which }: Omit<Rule, "fault" | "path"> & { path?: RegExp } = {},
  ): Promise<ActiveFault> {
    const rule = { ...which, ...(path && { path: path.source }), fault };
    const id = await this.#hosted.call("add", rule);
    let last = { matched: 0, applied: 0 };
    return {
      count: async () => {
        const found = (await this.#hosted.call("counts")).find((each) => each.id === id);
        if (found !== undefined) last = { matched: found.matched, applied: found.applied };
        return last;
      },
      [Symbol.asyncDispose]: async () => {
        await this.#hosted.call("remove", id);
      },
    };
  }

  /** Refuses connections from now on, and resets those that are there. Idempotent. */
  async cut(): Promise<void> {
    await this.#hosted.call("cut");
  }

  /** Takes connections again. Idempotent. */
  async mend(): Promise<void> {
    await this.#hosted.call("mend");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#hosted[Symbol.asyncDispose]();
  }
}

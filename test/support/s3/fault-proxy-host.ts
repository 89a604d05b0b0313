import { FaultProxyService } from "./proxy/fault-proxy-service.js";
import type { Rule, RuleCount } from "./proxy/rules.js";
import { host } from "./hosted.js";

/** What a fault proxy is started with: see fault-proxy.ts. */
export interface ProxyHostOptions {
  /** "http://host:port" or "unix:/path" of the server */
  readonly target: string;
  /** a port, 0 for any, or the path of a socket */
  readonly at: number | string;
}

/** What it can be asked. */
export interface ProxyHostCalls {
  readonly [name: string]: (...args: never[]) => unknown;
  readonly add: (rule: Rule) => number;
  readonly remove: (id: number) => void;
  readonly counts: () => RuleCount[];
  readonly cut: () => Promise<void>;
  readonly mend: () => Promise<void>;
}

host(async ({ target, at }: ProxyHostOptions) => {
  const proxy = new FaultProxyService(target);
  const calls: ProxyHostCalls = {
    add: (rule: Rule) => proxy.rules.add(rule),
    remove: (id: number) => proxy.rules.remove(id),
    counts: () => proxy.rules.counts(),
    cut: () => proxy.cut(),
    mend: () => proxy.mend(),
  };
  return { ready: await proxy.listen(at), calls };
});

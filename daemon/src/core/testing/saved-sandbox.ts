import type { SavedSandbox } from "../remote/sandbox-manifest.js";

/** One that is like any other but for what is said. */
export function savedSandbox(more: Partial<SavedSandbox> = {}): SavedSandbox {
  return {
    created: "2026-01-02T03:04:05.000Z",
    owner: "",
    task: "",
    layers: ["000-base"],
    cpu: 2,
    memoryMb: 1024,
    pids: 1024,
    maxLifetimeS: 0,
    network: { policy: { allow: null, deny: [] }, limits: { downKbit: null, upKbit: null, connectionsPerS: null } },
    nestedUserns: false,
    upperLimitBytes: 536_870_912,
    secrets: null,
    retention: {},
    forkedFrom: null,
    latestSnapshot: null,
    head: null,
    restored: null,
    ...more,
  };
}

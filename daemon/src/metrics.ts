import { Counter, Gauge, Histogram, Registry, collectDefaultMetrics } from "prom-client";
import type { DomainEvent, Emit, OperationEvent } from "./core/events.js";
import type { Gauges } from "./core/service.js";

const buckets = [0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 5, 30, 120, 600];

/** Gauges of each sandbox, named as the API names them. They begin anew with a sandbox's cell. */
const networkFigures = {
  sent_bytes: "Bytes that a sandbox has sent",
  sent_packets: "Packets that a sandbox has sent",
  received_bytes: "Bytes that a sandbox has received",
  received_packets: "Packets that a sandbox has received",
  connections_open: "Connections of a sandbox that the host tracks",
  connections_refused: "Connections and packets of a sandbox that were refused",
  dns_allowed: "DNS queries of a sandbox that were answered",
  dns_refused: "DNS queries of a sandbox that were refused",
  dns_limited: "DNS queries of a sandbox beyond the rate limit",
} as const;

/** Figures for Prometheus, kept from the domain's events; gauges are read when they are scraped. */
export class Metrics {
  readonly #registry = new Registry();
  readonly #operations = new Histogram({
    name: "squash_operation_seconds",
    help: "Duration of creates, execs and destroys",
    labelNames: ["operation", "outcome"],
    buckets,
    registers: [this.#registry],
  });
  readonly #stages = new Histogram({
    name: "squash_stage_seconds",
    help: "Duration of each stage of creates and destroys",
    labelNames: ["operation", "stage"],
    buckets,
    registers: [this.#registry],
  });
  readonly #pool = this.#counter("squash_pool_claims_total", "Creates by whether a cell waited for them", "result");
  readonly #errors = this.#counter("squash_errors_total", "Failed operations by error code", "code");
  readonly #recovered = this.#counter(
    "squash_recovered_total",
    "Sandboxes found at a start or after a death, by what became of them",
    "how",
  );
  readonly #swept = this.#counter("squash_swept_total", "Leftovers that were removed", "what");
  readonly #upkeep = this.#counter(
    "squash_snapshot_upkeep_total",
    "What the background did to snapshots, failed to do, or found",
    "what",
  );
  readonly #hostRestarts = this.#counter("squash_host_restarts_total", "Times sq-host had to be started again");
  readonly #decisions = this.#counter(
    "squash_network_decisions_total",
    "Logged decisions on what sandboxes wanted to reach",
    "kind",
    "verdict",
  );
  readonly #secretUses = this.#counter(
    "squash_secret_uses_total",
    "Requests with a secret's placeholder, by whether its value was sent",
    "secret",
    "outcome",
  );
  readonly #networks = Object.entries(networkFigures).map(([name, help]) => {
    const labelNames = ["sandbox"] as const;
    const gauge = new Gauge({ name: `squash_network_${name}`, help, labelNames, registers: [this.#registry] });
    return { name: name as keyof typeof networkFigures, gauge };
  });
  #gauges: Gauges | null = null;
  readonly #cellFailures = this.#counter("squash_cell_failures_total", "Cells that could not be made for the pool");

  constructor() {
    collectDefaultMetrics({ register: this.#registry });
  }

  /** Figures of what goes to the bucket. */
  watchBucket(counts: () => { readonly queued: number; readonly sent: number; readonly failed: number }): void {
    const registers = [this.#registry];
    new Gauge({
      name: "squash_bucket_queued",
      help: "Things that wait to be sent to the bucket",
      registers,
      collect: atScrape(() => counts().queued),
    });
    new Gauge({
      name: "squash_bucket_done",
      help: "Things that were done in the bucket since the start, and tries that failed",
      labelNames: ["outcome"],
      registers,
      collect() {
        const { sent, failed } = counts();
        this.set({ outcome: "ok" }, sent);
        this.set({ outcome: "failed" }, failed);
      },
    });
  }

  /** Adds the gauges, which are read at every scrape. */
  watch(gauges: Gauges): void {
    this.#gauges = gauges;
    const registers = [this.#registry];
    new Gauge({
      name: "squash_sandboxes",
      help: "Sandboxes by state",
      labelNames: ["state"],
      registers,
      collect() {
        for (const [state, count] of Object.entries(gauges.sandboxesByState())) this.set({ state }, count);
      },
    });
    new Gauge({
      name: "squash_pool_ready",
      help: "Cells that wait",
      registers,
      collect: atScrape(() => gauges.poolReady()),
    });
    new Gauge({
      name: "squash_layers_mounted",
      help: "Mounted layers",
      registers,
      collect: atScrape(() => gauges.layersMounted()),
    });
    new Gauge({
      name: "squash_network_learned_addresses",
      help: "Addresses that names have resolved to",
      registers,
      collect: atScrape(() => gauges.learnedAddresses()),
    });
  }

  get contentType(): string {
    return this.#registry.contentType;
  }

  async render(): Promise<string> {
    const figures = (await this.#gauges?.networks()) ?? [];
    for (const { name, gauge } of this.#networks) {
      gauge.reset();
      for (const { sandbox, usage } of figures) gauge.set({ sandbox }, usage[name]);
    }
    return this.#registry.metrics();
  }

  readonly observe: Emit = (event: DomainEvent) => {
    switch (event.type) {
      case "sandbox.create":
      case "sandbox.exec":
      case "sandbox.destroy":
        this.#observeOperation(event);
        break;
      case "sandbox.recovered":
        this.#recovered.inc({ how: event.how });
        break;
      case "swept":
        this.#swept.inc({ what: event.what });
        break;
      case "host.restarted":
        this.#hostRestarts.inc();
        break;
      case "cell.failed":
        this.#cellFailures.inc();
        break;
      case "network.decided":
        this.#decisions.inc({ kind: event.kind, verdict: event.allowed ? "allowed" : "refused" });
        break;
      case "secret.used":
        this.#secretUses.inc({ secret: event.secret, outcome: event.outcome });
        break;
      case "snapshot.expired":
        this.#upkeep.inc({ what: "expired" }, event.labels.length);
        break;
      case "snapshot.merged":
        this.#upkeep.inc({ what: "merged" });
        break;
      case "snapshot.upkeep":
        this.#upkeep.inc({ what: "failed" });
        break;
      case "snapshot.damaged":
        this.#upkeep.inc({ what: "damaged" });
        break;
      case "cell.made":
      case "snapshot.taken":
      case "snapshot.removed":
      case "leftover":
      case "unwritten":
      case "sandbox.died":
      case "sandbox.fenced":
      case "record.damaged":
      case "secrets.problem":
        break;
    }
  };

  #observeOperation(event: OperationEvent): void {
    const operation = event.type.slice("sandbox.".length);
    this.#operations.observe({ operation, outcome: event.outcome === "ok" ? "ok" : "error" }, event.durationMs / 1000);
    for (const stage in event.stages) this.#stages.observe({ operation, stage }, (event.stages[stage] ?? 0) / 1000);
    if (event.outcome !== "ok") this.#errors.inc({ code: event.outcome });
    else if (event.pooled !== undefined) this.#pool.inc({ result: event.pooled ? "hit" : "miss" });
  }

  #counter<const Label extends string>(name: string, help: string, ...labelNames: Label[]): Counter<Label> {
    return new Counter({ name, help, labelNames, registers: [this.#registry] });
  }
}

function atScrape(read: () => number): (this: Gauge) => void {
  return function () {
    this.set(read());
  };
}

import { SquashError } from "@squash/sdk/errors";
import type { GrantRequest, NetworkInfo, NetworkRequest } from "@squash/sdk/protocol";
import { networkSettings, networkWish } from "./egress/settings.js";
import type { SandboxRecord } from "./ports.js";
import type { Sandbox } from "./sandbox.js";
import type { StageParts } from "./sandbox-stages.js";
import { secretAccess } from "./secrets/grants.js";
import type { NetworkFigures } from "./service.js";

const figuresAtOnce = 4;

/** Which sandboxes there are; core/sandboxes.ts has what each does. */
interface Registry {
  find(id: string): Sandbox;
  all(): readonly Sandbox[];
  mustBeReady(sandbox: Sandbox): SandboxRecord;
  exclusively<T>(id: string, work: () => Promise<T>): Promise<T>;
}

/** What is changed about sandboxes' networks while they run. Every method throws `SquashError`. */
export class LiveNetworks {
  readonly #parts: Pick<StageParts, "networks" | "store">;
  readonly #registry: Registry;

  constructor(parts: Pick<StageParts, "networks" | "store">, registry: Registry) {
    this.#parts = parts;
    this.#registry = registry;
  }

  async network(id: string): Promise<NetworkInfo> {
    const record = this.#registry.mustBeReady(this.#registry.find(id));
    const usage = await this.#parts.networks.usage(record.cell.index);
    if (usage === null) throw networkOff(id);
    return { ...networkWish(record.network), ...usage };
  }

  /** Of all sandboxes that have a network, a few at a time, so that what else the kernel is asked for is not held up. */
  async figures(): Promise<NetworkFigures[]> {
    const ready = this.#registry.all().filter(({ state, record }) => state === "ready" && record !== null);
    const found: NetworkFigures[] = [];
    for (let at = 0; at < ready.length; at += figuresAtOnce) {
      const some = ready.slice(at, at + figuresAtOnce).map(async ({ id, record }) => {
        // one that goes meanwhile has none
        const usage = record === null ? null : await this.#parts.networks.usage(record.cell.index).catch(() => null);
        return usage === null ? [] : [{ sandbox: id, usage }];
      });
      found.push(...(await Promise.all(some)).flat());
    }
    return found;
  }

  async setNetwork(id: string, request: NetworkRequest): Promise<NetworkInfo> {
    const sandbox = this.#registry.find(id);
    const network = networkSettings(request);
    this.#parts.networks.check(network);
    await this.#registry.exclusively(id, async () => {
      const record = { ...this.#registry.mustBeReady(sandbox), network };
      await this.#putIntoForce(sandbox, record, (of) => this.#parts.networks.change(of.cell.index, of.network));
    });
    return this.network(id);
  }

  async setSecrets(id: string, { secrets }: GrantRequest): Promise<void> {
    const sandbox = this.#registry.find(id);
    this.#parts.networks.checkSecrets(secrets);
    await this.#registry.exclusively(id, async () => {
      const before = this.#registry.mustBeReady(sandbox);
      const record = { ...before, secrets };
      await this.#putIntoForce(sandbox, record, (of) => this.#parts.networks.grant(of.cell.index, secretAccess(of)));
    });
  }

  /** In force first: a crash in between leaves the stricter or the wider of the two, and the caller without an answer. */
  async #putIntoForce(
    sandbox: Sandbox,
    record: SandboxRecord,
    apply: (record: SandboxRecord) => Promise<void>,
  ): Promise<void> {
    const before = this.#registry.mustBeReady(sandbox);
    await apply(record);
    try {
      await this.#parts.store.writeRecord(record);
    } catch (error) {
      // what a restart would find is what is in force
      await apply(before);
      throw error;
    }
    sandbox.record = record;
  }
}

function networkOff(id: string): SquashError {
  return new SquashError("network_off", `Cannot show the network of "${id}": SQUASH_SUBNET is "none"`);
}

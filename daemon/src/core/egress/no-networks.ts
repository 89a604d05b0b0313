import { SquashError } from "@squash/sdk/errors";
import type { SecretAccess } from "../secrets/grants.js";
import type { LinkAddresses, Networks } from "./networks.js";
import type { NetworkSettings } from "./settings.js";

/** Where the operator switched the network off: loopback is all there is. */
export class NoNetworks implements Networks {
  check({ policy, limits }: NetworkSettings): void {
    const isPlain =
      policy.deny.length === 0 && (policy.allow === null || (policy.allow.length === 1 && policy.allow[0] === "none"));
    if (isPlain && Object.values(limits).every((limit) => limit === null)) return;
    throw new SquashError(
      "invalid_request",
      'Cannot accept the request: SQUASH_SUBNET is "none", so sandboxes have no network, and allow_net must be absent or ["none"]',
      { details: { field: "allow_net" } },
    );
  }

  checkSecrets(names: readonly string[] | null): void {
    if (names === null || names.length === 0) return;
    throw new SquashError(
      "invalid_request",
      'Cannot grant secrets: SQUASH_SUBNET is "none", so sandboxes have no network that they could be sent over; leave secrets out',
      { details: { field: "secrets" } },
    );
  }

  granted(): string[] {
    return [];
  }

  grant(_index: number, { secrets }: SecretAccess): Promise<void> {
    this.checkSecrets(secrets);
    return Promise.resolve();
  }

  attach(): Promise<void> {
    return Promise.resolve();
  }

  change(_index: number, settings: NetworkSettings): Promise<void> {
    this.check(settings);
    return Promise.resolve();
  }

  detach(): Promise<void> {
    return Promise.resolve();
  }

  addressesOf(): LinkAddresses {
    return { address: null, address6: null };
  }

  usage(): Promise<null> {
    return Promise.resolve(null);
  }
}

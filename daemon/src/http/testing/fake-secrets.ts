import { SquashError } from "@squash/sdk/errors";
import type { AuthorityInfo, SecretInfo, SecretList } from "@squash/sdk/protocol";
import type { Authorities, SecretService } from "../../core/service.js";

/** No secrets, and no authority; for tests of other routes. */
export class FakeSecrets implements SecretService, Authorities {
  list(): SecretList {
    return { secrets: [], problem: null };
  }

  put(): Promise<SecretInfo> {
    return Promise.reject(new SquashError("secrets_unusable", "There is no file"));
  }

  remove(name: string): Promise<void> {
    return Promise.reject(new SquashError("secret_not_found", `Cannot find secret "${name}"`));
  }

  rekey(): Promise<void> {
    return Promise.reject(new SquashError("invalid_request", "There is no key"));
  }

  audit(): Promise<[]> {
    return Promise.resolve([]);
  }

  current(): AuthorityInfo {
    throw new SquashError("network_off", "There is none");
  }

  rotate(): Promise<AuthorityInfo> {
    return Promise.reject(new SquashError("network_off", "There is none"));
  }
}

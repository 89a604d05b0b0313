import type { ImageDefaults } from "../image-defaults.js";
import type { Layers } from "../layers.js";
import { profileScript, secretEnvironment } from "./environment.js";
import type { SecretRule } from "./secret.js";
import type { RootTrust } from "./root-trust.js";
import type { TrustedAuthority, TrustImages } from "./trust.js";

/** Names as asked for; null, or nothing, for all that there are. */
type Grants = readonly string[] | null | undefined;

/** A stack that a root is made of. */
interface Stack {
  readonly secrets?: Grants;
  /** keys of the modules' mounted layers, topmost first */
  readonly modules: readonly string[];
  readonly defaults: ImageDefaults | undefined;
}

/** A layer that belongs above the modules of a stack. */
export interface TrustLayer {
  /** the key under which it is mounted, to be given back */
  readonly key: string;
  readonly root: RootTrust;
}

export interface InjectionParts {
  /** The secrets of a sandbox, by name. */
  readonly granted: (secrets: readonly string[] | null) => readonly Pick<SecretRule, "name" | "placeholder">[];
  /** The certificate authority that new roots trust; null for none. */
  readonly authority: () => TrustedAuthority | null;
  /** address that sandboxes reach squashd by; null where they have no network */
  readonly gateway: string | null;
  readonly images: TrustImages;
  readonly layers: Layers;
}

/** What sandboxes are given so that programs in them work as if they had the secrets. */
export interface Injection {
  /** What every command in a sandbox is started with, as its grants are now. Throws `invalid_request`. */
  environment(sandbox: { readonly secrets?: Grants; readonly trust?: RootTrust }): Readonly<Record<string, string>>;
  /** Mounts what a new root is to have besides its modules; null where no secret is granted, or nobody is to be trusted. Throws `invalid_request`, `module_invalid`. */
  acquire(stack: Stack): Promise<TrustLayer | null>;
}

export class SecretInjection implements Injection {
  readonly #parts: InjectionParts;

  constructor(parts: InjectionParts) {
    this.#parts = parts;
  }

  environment({ secrets = null, trust }: Parameters<Injection["environment"]>[0]): Readonly<Record<string, string>> {
    const { granted, gateway } = this.#parts;
    return secretEnvironment({ granted: granted(secrets), gateway, trust: trust ?? null });
  }

  async acquire({ secrets = null, modules, defaults }: Stack): Promise<TrustLayer | null> {
    const { images, layers, gateway } = this.#parts;
    const granted = this.#parts.granted(secrets);
    const authority = this.#parts.authority();
    if (granted.length === 0 || authority === null) return null;
    const profile = (bundle: string): string =>
      profileScript(secretEnvironment({ granted, gateway, trust: { ca: authority.fingerprint, bundle } }));
    const javaHome = defaults?.env["JAVA_HOME"] ?? null;
    return images.use({ authority, modules, javaHome, profile }, async ({ layer, root }) => {
      const [key = ""] = await layers.acquire([layer]);
      return { key, root };
    });
  }
}

/** For a squashd without secrets. */
export const noInjection: Injection = {
  environment: () => ({}),
  acquire: () => Promise.resolve(null),
};

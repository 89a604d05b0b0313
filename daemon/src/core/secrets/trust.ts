import type { LayerImage } from "../ports.js";
import type { RootTrust } from "./root-trust.js";

/** A certificate authority as sandboxes have to know it. */
export interface TrustedAuthority {
  /** SHA-256 of its certificate in DER, in lower-case hexadecimal digits */
  readonly fingerprint: string;
  readonly certificatePem: string;
}

/** What an image of trust is made of. The same wish gives the same image. */
export interface TrustWish {
  readonly authority: TrustedAuthority;
  /** keys of the modules' mounted layers, topmost first */
  readonly modules: readonly string[];
  /** where programs of these modules look for Java; null where they do not say */
  readonly javaHome: string | null;
  /** what login shells are to read, by the path of the bundle */
  readonly profile: (bundle: string) => string;
}

export interface TrustImage {
  readonly layer: LayerImage;
  readonly root: RootTrust;
}

/** Images of a few files each that lie in a stack between modules and snapshots. */
export interface TrustImages {
  /** Finds or makes an image, which stays while `use` runs. Throws `module_invalid` where the modules have something strange in its place. */
  use<T>(wish: TrustWish, use: (image: TrustImage) => Promise<T>): Promise<T>;
}

/** What the root of a sandbox was given so that programs in it trust the proxy. */
export interface RootTrust {
  /** fingerprint of the certificate authority */
  readonly ca: string;
  /** path inside of the file with all certificates that programs trust, that one among them */
  readonly bundle: string;
}

/** A certificate authority of this installation, with the key that signs leaves. */
export interface Authority {
  /** SHA-256 of its certificate in DER, in lower-case hexadecimal digits */
  readonly fingerprint: string;
  readonly certificatePem: string;
  readonly keyPem: string;
}

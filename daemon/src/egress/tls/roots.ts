import { readFileSync } from "node:fs";
import { createSecureContext, rootCertificates, type SecureContext } from "node:tls";

/** where distributions keep what the host trusts, in one file */
const usualBundles = [
  "/etc/ssl/certs/ca-certificates.crt",
  "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
  "/etc/pki/tls/certs/ca-bundle.crt",
  "/etc/ssl/ca-bundle.pem",
  "/etc/ssl/cert.pem",
];

export interface RootsOptions {
  /** PEM file of roots that are trusted besides; null for none */
  readonly extraFile: string | null;
  /** the host's bundles, of which the first that is there counts; for tests */
  readonly bundles?: readonly string[];
}

/** What servers' certificates are verified against; the same at each call. */
export type Trusted = () => SecureContext;

/**
 * The host's roots, those that Node brings along where it has none, and the extra ones. Read once; throws where a file cannot be read or holds no
 * certificate. Parsed at the first call: a hundred roots take longer than all else that a start waits for, and most machines have no secrets.
 */
export function trustedRoots({ extraFile, bundles = usualBundles }: RootsOptions): Trusted {
  const ca = [...hostRoots(bundles), ...(extraFile === null ? [] : [certificatesIn(extraFile)])];
  let context: SecureContext | null = null;
  return () => (context ??= createSecureContext({ ca, minVersion: "TLSv1.2" }));
}

function hostRoots(bundles: readonly string[]): readonly string[] {
  for (const bundle of bundles) {
    try {
      return [certificatesIn(bundle)];
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    }
  }
  return rootCertificates;
}

function certificatesIn(path: string): string {
  const text = readFileSync(path, "utf8");
  if (!text.includes("-----BEGIN CERTIFICATE-----"))
    throw new Error(`Cannot use ${path}: there is no certificate in it`);
  return text;
}

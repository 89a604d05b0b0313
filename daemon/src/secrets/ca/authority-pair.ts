import { X509Certificate, createHash, createPrivateKey, generateKeyPairSync, randomBytes, sign } from "node:crypto";
import { authorityExtensions, distinguishedName, makeCertificate } from "../../core/x509/certificate.js";

/** A certificate authority with its key. */
export interface AuthorityPair {
  /** SHA-256 of the certificate in DER, in hexadecimal */
  readonly fingerprint: string;
  readonly certificatePem: string;
  /** PKCS #8 */
  readonly keyPem: string;
  readonly notAfter: Date;
}

const years = 10;
const minuteMs = 60_000;

/** Makes an authority with a new key. Its name tells installations apart: a client finds an issuer by its name. */
export function makePair(now = new Date()): AuthorityPair {
  const { publicKey, privateKey } = generateKeyPairSync("ec", {
    namedCurve: "P-256",
    publicKeyEncoding: { type: "spki", format: "der" },
    privateKeyEncoding: { type: "pkcs8", format: "pem" },
  });
  const keyId = createHash("sha256").update(publicKey).digest().subarray(0, 20);
  const name = distinguishedName({ organization: "squash", commonName: `squash proxy ${keyId.toString("hex", 0, 6)}` });
  const serial = randomBytes(16);
  serial[0] = 0x40 | ((serial[0] ?? 0) & 0x3f);
  const notAfter = new Date(now);
  notAfter.setUTCFullYear(notAfter.getUTCFullYear() + years);
  const certificate = makeCertificate(
    {
      ...{ serial, issuer: name, subject: name, publicKey, notAfter },
      notBefore: new Date(now.getTime() - minuteMs),
      extensions: authorityExtensions(keyId),
    },
    (bytes) => sign("sha256", bytes, privateKey),
  );
  return readPair(new X509Certificate(certificate).toString(), privateKey);
}

/** Reads a pair. Throws an error whose message says what is wrong with it. */
export function readPair(certificatePem: string, keyPem: string, now = new Date()): AuthorityPair {
  const certificate = parsed("certificate", () => new X509Certificate(certificatePem));
  const key = parsed("key", () => createPrivateKey({ key: keyPem, format: "pem" }));
  if (key.asymmetricKeyType !== "ec" || key.asymmetricKeyDetails?.namedCurve !== "prime256v1")
    throw new Error("the key is not one of P-256");
  if (!certificate.ca) throw new Error("the certificate is not one of an authority");
  if (!certificate.checkPrivateKey(key)) throw new Error("certificate and key do not belong together");
  if (!certificate.verify(certificate.publicKey)) throw new Error("the certificate is not signed by its own key");
  const notAfter = new Date(certificate.validTo);
  if (notAfter <= now) throw new Error(`the certificate has expired at ${notAfter.toISOString()}`);
  if (new Date(certificate.validFrom) > now) throw new Error("the certificate is not yet valid");
  const fingerprint = createHash("sha256").update(certificate.raw).digest("hex");
  return { fingerprint, certificatePem: certificate.toString(), keyPem, notAfter };
}

function parsed<T>(what: string, parse: () => T): T {
  try {
    return parse();
  } catch {
    // OpenSSL's own words say nothing to a reader, and might show bytes of the key
    throw new Error(`the ${what} cannot be read`);
  }
}

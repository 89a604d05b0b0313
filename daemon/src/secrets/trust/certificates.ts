import { X509Certificate } from "node:crypto";
import { setImmediate } from "node:timers/promises";
import { strange } from "./module-view.js";

/** larger than any distribution's by ten times */
export const maxBundleBytes = 4 * 1_048_576;
const maxCertificates = 2_000;
/** parsed in a row; others have their turn in between */
const atOnce = 32;

const block = /-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]{1,65536}?)-----END CERTIFICATE-----/g;

/** A file of certificates with one more at its end. Throws `module_invalid` for what is no such file. */
export function withCertificate(path: string, content: Buffer, certificatePem: string): Buffer {
  const text = content.toString("latin1");
  if (text.trim() !== "" && !text.includes("-----BEGIN CERTIFICATE-----"))
    throw strange(path, "no list of certificates, which programs expect there");
  const end = text === "" || text.endsWith("\n") ? "" : "\n";
  return Buffer.concat([content, Buffer.from(`${end}${certificatePem.trimEnd()}\n`)]);
}

/** The certificates in a file, in DER; what is none is left out, as one that Java cannot read would cost it all others. Throws `module_invalid` for too many. */
export async function certificatesIn(path: string, content: Buffer): Promise<Buffer[]> {
  const found: Buffer[] = [];
  let seen = 0;
  for (const [, base64 = ""] of content.toString("latin1").matchAll(block)) {
    if (++seen > maxCertificates) throw strange(path, `more than ${maxCertificates} certificates`);
    if (seen % atOnce === 0) await setImmediate();
    const der = Buffer.from(base64, "base64");
    if (isCertificate(der)) found.push(der);
  }
  return found;
}

function isCertificate(der: Buffer): boolean {
  try {
    return new X509Certificate(der).raw.equals(der);
  } catch {
    return false; // that is the question
  }
}

import { X509Certificate, createHash, createPrivateKey, randomBytes, sign, type KeyObject } from "node:crypto";
import type { SecureContext } from "node:tls";
import { makeCertificate, noName, serverExtensions } from "../../core/x509/certificate.js";
import { partsOf } from "../../core/x509/der.js";
import { leafContexts } from "./leaf-contexts.js";

const maxKept = 512;
const dayMs = 24 * 3_600_000;
const minuteMs = 60_000;
/** before a certificate's end nobody is given it any more: connections that are being made must come to theirs */
const marginMs = 60 * minuteMs;

interface Kept {
  readonly context: SecureContext;
  /** as `Date.now()` has it */
  readonly until: number;
}

/** Issues certificates for hosts from one authority, for a day each; the last few hundred are kept. */
export class LeafIssuer {
  readonly #key: KeyObject;
  readonly #issuer: Uint8Array;
  readonly #keyId: Uint8Array;
  readonly #end: number;
  /** by host, the longest unused first */
  readonly #kept = new Map<string, Kept>();
  readonly #now: () => number;
  readonly #contexts = leafContexts();

  constructor(authority: { readonly certificatePem: string; readonly keyPem: string }, now: () => number = Date.now) {
    const certificate = new X509Certificate(authority.certificatePem);
    const spki = certificate.publicKey.export({ type: "spki", format: "der" });
    this.#key = createPrivateKey(authority.keyPem);
    this.#issuer = subjectOf(certificate.raw);
    this.#keyId = createHash("sha256").update(spki).digest().subarray(0, 20);
    this.#end = Date.parse(certificate.validTo);
    this.#now = now;
  }

  /** What a TLS server needs to be this host, which must be a name that was checked. */
  contextFor(host: string): SecureContext {
    const now = this.#now();
    const kept = this.#kept.get(host);
    this.#kept.delete(host);
    if (kept !== undefined && now < kept.until) {
      this.#kept.set(host, kept);
      return kept.context;
    }
    const end = Math.min(now + dayMs, this.#end);
    const context = this.#contexts.make(this.#issue(host, now, end));
    this.#kept.set(host, { context, until: Math.min(end, now + dayMs - marginMs) });
    if (this.#kept.size > maxKept) this.#kept.delete(this.#kept.keys().next().value ?? "");
    return context;
  }

  /** Whether there is one already that would be given. */
  has(host: string): boolean {
    const kept = this.#kept.get(host);
    return kept !== undefined && this.#now() < kept.until;
  }

  #issue(host: string, now: number, end: number): Uint8Array {
    const serial = randomBytes(16);
    serial[0] = 0x40 | ((serial[0] ?? 0) & 0x3f);
    return makeCertificate(
      {
        ...{ serial, issuer: this.#issuer, subject: noName, publicKey: this.#contexts.publicKey },
        notBefore: new Date(now - minuteMs),
        notAfter: new Date(end),
        extensions: serverExtensions(host, this.#keyId),
      },
      (bytes) => sign("sha256", bytes, this.#key),
    );
  }
}

/** In the bytes of the authority's own certificate, since a client compares bytes. Source: RFC 5280, section 4.1 */
function subjectOf(certificate: Uint8Array): Uint8Array {
  const [signed = certificate] = partsOf(certificate);
  const subject = partsOf(signed)[5]; // after version, serial, algorithm, issuer, validity
  if (subject === undefined) throw new RangeError("a certificate without a subject");
  return subject;
}

import { bits, integer, octets, oid, primitive, sequence, setOf, tagged, time, truth, utf8 } from "./der.js";

/** A name of one certificate, of what is the least that tells it from others. */
export interface DistinguishedName {
  readonly organization: string;
  readonly commonName: string;
}

export interface CertificateFacts {
  /** 1 to 20 bytes, the first below 0x80 and the number above 0 */
  readonly serial: Uint8Array;
  readonly issuer: Uint8Array;
  readonly subject: Uint8Array;
  readonly notBefore: Date;
  readonly notAfter: Date;
  /** SubjectPublicKeyInfo */
  readonly publicKey: Uint8Array;
  readonly extensions: readonly Uint8Array[];
}

/** Signs by ECDSA with SHA-256; the signature is in DER. */
export type Sign = (bytes: Uint8Array) => Uint8Array;

const ecdsaWithSha256 = sequence(oid("1.2.840.10045.4.3.2"));
const serverAuth = oid("1.3.6.1.5.5.7.3.1");

/** A whole certificate, in DER. Source: RFC 5280, section 4.1 */
export function makeCertificate(facts: CertificateFacts, sign: Sign): Uint8Array {
  const { serial, issuer, subject, notBefore, notAfter, publicKey, extensions } = facts;
  const signed = sequence(
    tagged(0, integer(Buffer.from([2]))), // version 3
    integer(serial),
    ecdsaWithSha256,
    issuer,
    sequence(time(notBefore), time(notAfter)),
    subject,
    publicKey,
    tagged(3, sequence(...extensions)),
  );
  return sequence(signed, ecdsaWithSha256, bits(sign(signed)));
}

export function distinguishedName({ organization, commonName }: DistinguishedName): Uint8Array {
  const part = (type: string, text: string): Uint8Array => setOf(sequence(oid(type), utf8(text)));
  return sequence(part("2.5.4.10", organization), part("2.5.4.3", commonName));
}

/** What a certificate without a name of its own has in place of it: `subjectAltName` has to be critical then. */
export const noName = sequence();

/** Whatever issues certificates, of leaves only. */
export function authorityExtensions(keyId: Uint8Array): Uint8Array[] {
  return [
    extension("2.5.29.19", true, sequence(truth(), integer(Buffer.from([0])))), // basicConstraints: CA, no other below it
    extension("2.5.29.15", true, bits(Buffer.from([0x04]), 2)), // keyUsage: keyCertSign
    extension("2.5.29.14", false, octets(keyId)), // subjectKeyIdentifier
    extension("2.5.29.30", true, sequence(tagged(1, ...allAddresses.map((range) => sequence(primitive(7, range)))))),
  ];
}

/** A server of one name. */
export function serverExtensions(host: string, issuerKeyId: Uint8Array): Uint8Array[] {
  return [
    extension("2.5.29.19", true, sequence()), // basicConstraints: no CA
    extension("2.5.29.15", true, bits(Buffer.from([0x80]), 7)), // keyUsage: digitalSignature
    extension("2.5.29.37", false, sequence(serverAuth)), // extKeyUsage
    extension("2.5.29.17", true, sequence(primitive(2, Buffer.from(host, "latin1")))), // subjectAltName
    extension("2.5.29.35", false, sequence(primitive(0, issuerKeyId))), // authorityKeyIdentifier
  ];
}

/** All of IPv4, all of IPv6: address and mask. */
const allAddresses = [Buffer.alloc(8), Buffer.alloc(32)];

function extension(type: string, critical: boolean, value: Uint8Array): Uint8Array {
  return sequence(oid(type), ...(critical ? [truth()] : []), octets(value));
}

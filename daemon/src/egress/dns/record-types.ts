import type { CaaAnswer, MxAnswer, SoaAnswer, SrvAnswer, StringAnswer, StringRecordType, TxtAnswer } from "dns-packet";

/** Numbers of the types that are treated in a way of their own. Source: IANA, DNS parameters */
const typeNumber = {
  A: 1,
  NS: 2,
  CNAME: 5,
  SOA: 6,
  PTR: 12,
  MX: 15,
  TXT: 16,
  AAAA: 28,
  SRV: 33,
  SVCB: 64,
  HTTPS: 65,
  IXFR: 251,
  AXFR: 252,
  ANY: 255,
  CAA: 257,
} as const;

export type TypeName = keyof typeof typeNumber;

const names = new Map<number, TypeName>(Object.entries(typeNumber).map(([name, number]) => [number, name as TypeName]));

/** The name of a type that is known here. */
export function typeName(number: number): TypeName | undefined {
  return names.get(number);
}

/** Types whose answers hold no address, so that they grant nothing. */
export type RecordType = "CAA" | "CNAME" | "MX" | "NS" | "PTR" | "SOA" | "SRV" | "TXT";
export type AddressType = "A" | "AAAA";

type DataOf<A> = A extends { readonly type: infer T; readonly data: infer D }
  ? { readonly type: T; readonly data: D }
  : never;

/** What one record holds, apart from its owner and TTL. */
export type RecordData =
  | { readonly [T in StringRecordType]: { readonly type: T; readonly data: StringAnswer["data"] } }[
      AddressType | "CNAME" | "NS" | "PTR"]
  | DataOf<CaaAnswer | MxAnswer | SoaAnswer | SrvAnswer | TxtAnswer>;

/** Holds for names that mean the same as text and on the wire: nothing in them is escaped, or too long. */
export function isPlainName(name: string): boolean {
  return name.length <= 253 && /^(?:[!-\-/-[\]-~]{1,63}(?:\.(?!$)|$))+$/.test(name);
}

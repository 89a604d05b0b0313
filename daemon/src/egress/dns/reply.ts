import { DNSSEC_OK, encode, type Answer } from "dns-packet";
import type { ResolveError } from "./answer-cache.js";
import { flag, plainUdpSize, rcode, type Query } from "./query.js";
import type { RecordData } from "./record-types.js";

/** Fits into every link's packets, so that no answer by UDP is ever fragmented. Source: DNS flag day 2020 */
const maxUdpSize = 1232;
const maxTcpSize = 65_535;
const headerSize = 12;
/** a pointer to the name in the question, which directly follows the header */
const pointerToQuestion = Buffer.from([0xc0, headerSize]);

/** What is answered to a query. */
export interface Reply {
  readonly code: number;
  readonly records: readonly RecordData[];
  /** of all records */
  readonly ttlS: number;
}

/** An answer without records. */
export function emptyReply(code: number): Reply {
  return { code, records: [], ttlS: 0 };
}

/** Returns the answer's bytes; where it does not fit by UDP, an empty one that sends the client to TCP. */
export function encodeReply(query: Query, reply: Reply, protocol: "tcp" | "udp"): Buffer {
  const records = reply.records.map((data) => encodeRecord(data, reply.ttlS));
  const option = query.edns === null ? [] : [encodeOption(reply.code >> 4, query.edns.dnssecOk)];
  const parts = [query.question, ...records, ...option];
  const size = parts.reduce((sum, part) => sum + part.length, headerSize);
  if (size > limitOf(query, protocol)) {
    return Buffer.concat([header(query, reply.code, flag.truncated, [0, option.length]), query.question, ...option]);
  }
  return Buffer.concat([header(query, reply.code, 0, [records.length, option.length]), ...parts]);
}

function limitOf(query: Query, protocol: "tcp" | "udp"): number {
  if (protocol === "tcp") return maxTcpSize;
  return Math.min(maxUdpSize, Math.max(plainUdpSize, query.edns?.udpSize ?? plainUdpSize));
}

function header(query: Query, code: number, flags: number, [answers, additionals]: readonly [number, number]): Buffer {
  const bytes = Buffer.alloc(headerSize);
  bytes.writeUInt16BE(query.id, 0);
  bytes.writeUInt16BE(flag.response | flag.recursionAvailable | query.flags | flags | (code & 0xf), 2);
  bytes.writeUInt16BE(1, 4);
  bytes.writeUInt16BE(answers, 6);
  bytes.writeUInt16BE(additionals, 10);
  return bytes;
}

/** A record with the name in question as its owner. */
function encodeRecord(data: RecordData, ttlS: number): Buffer {
  const message = encode({ answers: [{ name: ".", ttl: ttlS, class: "IN", ...data }] });
  return Buffer.concat([pointerToQuestion, message.subarray(headerSize + 1)]);
}

function encodeOption(extendedCode: number, dnssecOk: boolean): Buffer {
  const option: Answer = {
    type: "OPT",
    name: ".",
    udpPayloadSize: maxUdpSize,
    extendedRcode: extendedCode,
    ednsVersion: 0,
    flags: dnssecOk ? DNSSEC_OK : 0,
    flag_do: dnssecOk,
    options: [],
  };
  return encode({ additionals: [option] }).subarray(headerSize);
}

/** The code for what came from the resolver instead of records. */
export function codeOf(error: ResolveError): number {
  switch (error) {
    case "NODATA":
      return rcode.noError;
    case "NXDOMAIN":
      return rcode.nxDomain;
    case "SERVFAIL":
      return rcode.servFail;
  }
}

import { decode, type OptAnswer } from "dns-packet";
import { isPlainName } from "./record-types.js";

const headerSize = 12;
/** More than any question needs; what parsing costs grows with the square of a message's size. */
export const maxQuerySize = 1232;
/** what a client can take that does not say so. Source: RFC 1035, section 4.2.1 */
export const plainUdpSize = 512;
const classIn = 1;

export const flag = {
  response: 0x8000,
  truncated: 0x0200,
  recursionDesired: 0x0100,
  recursionAvailable: 0x0080,
  checkingDisabled: 0x0010,
};
const opcodeMask = 0x7800;
export const rcode = { noError: 0, formErr: 1, servFail: 2, nxDomain: 3, notImp: 4, refused: 5, badVersion: 16 };

/** What a client said of itself by an OPT record. Source: RFC 6891 */
interface Edns {
  readonly version: number;
  /** the largest message that it takes by UDP, in bytes */
  readonly udpSize: number;
  readonly dnssecOk: boolean;
}

/** One question that makes sense. */
export interface Query {
  readonly id: number;
  /** those of the query's flags that the answer repeats */
  readonly flags: number;
  /** in lower case, without a final dot */
  readonly name: string;
  readonly type: number;
  /** the question's bytes as they came, for the answer: clients compare the case of each letter */
  readonly question: Buffer;
  readonly edns: Edns | null;
}

/** Reads a message from a sandbox. Returns a ready answer for one that makes no sense, null where there is nothing to answer. */
export function parseQuery(message: Buffer): Query | Buffer | null {
  if (message.length < headerSize || (message.readUInt16BE(2) & flag.response) !== 0) return null;
  if ((message.readUInt16BE(2) & opcodeMask) !== 0) return bareReply(message, rcode.notImp);
  return parse(message) ?? bareReply(message, rcode.formErr);
}

function parse(message: Buffer): Query | null {
  if (message.length > maxQuerySize) return null;
  const [questions, answers, authorities, additionals] = [4, 6, 8, 10].map((at) => message.readUInt16BE(at));
  // an incremental transfer has one authority record; of additional ones, a signature may stand beside the OPT
  if (questions !== 1 || answers !== 0 || Number(authorities) > 1 || Number(additionals) > 2) return null;
  const name = readName(message);
  if (name === null || name.end + 4 > message.length) return null;
  if (message.readUInt16BE(name.end + 2) !== classIn) return null;
  const edns = readEdns(message);
  if (edns === undefined) return null;
  return {
    id: message.readUInt16BE(0),
    flags: message.readUInt16BE(2) & (flag.recursionDesired | flag.checkingDisabled),
    name: name.text.toLowerCase(),
    type: message.readUInt16BE(name.end),
    question: Buffer.from(message.subarray(headerSize, name.end + 4)),
    edns,
  };
}

/**
 * Reads the name in question. A dot or a backslash inside a label would make it another name as text than on the wire, so that the
 * policy would judge another name than the one that is asked for; such a name is none.
 */
function readName(message: Buffer): { text: string; end: number } | null {
  const labels: string[] = [];
  let at = headerSize;
  for (;;) {
    const size = message[at++];
    if (size === undefined || size > 63 || at + size > message.length) return null;
    if (size === 0) break;
    const label = message.toString("latin1", at, at + size);
    if (label.includes(".")) return null;
    labels.push(label);
    at += size;
  }
  const text = labels.join(".");
  return isPlainName(text) ? { text, end: at } : null;
}

/** Returns undefined for a message that is broken. */
function readEdns(message: Buffer): Edns | null | undefined {
  if (message.readUInt16BE(8) === 0 && message.readUInt16BE(10) === 0) return null;
  try {
    const options = (decode(message).additionals ?? []).filter((record): record is OptAnswer => record.type === "OPT");
    const [option, ...more] = options;
    if (option === undefined) return null;
    if (more.length > 0 || option.name !== ".") return undefined;
    return { version: option.ednsVersion, udpSize: option.udpPayloadSize, dnssecOk: option.flag_do };
  } catch {
    return undefined; // whatever it throws says that the bytes make no message
  }
}

/** An answer without a question, which is all that can be said about a message that makes no sense. */
function bareReply(message: Buffer, code: number): Buffer {
  const reply = Buffer.alloc(headerSize);
  reply.writeUInt16BE(message.readUInt16BE(0), 0);
  const repeated = message.readUInt16BE(2) & (opcodeMask | flag.recursionDesired);
  reply.writeUInt16BE(flag.response | flag.recursionAvailable | repeated | code, 2);
  return reply;
}

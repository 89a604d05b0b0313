import { ByteCollector, ByteReader } from "./byte-reader.js";
import { parseHostName } from "./host-name.js";

const maxBytes = 64 * 1024;
const maxRecord = 16 * 1024;
const maxRecords = 64;

const handshakeRecord = 22;
const clientHelloMessage = 1;
/** Source: IANA, TLS ExtensionType Values */
const serverNameExtension = 0;
const alpnExtension = 16;
/** encrypted_client_hello as in RFC 9849 and its later drafts, then the earlier ones and ESNI */
const echExtensions = new Set([0xfe0d, 0xfe0c, 0xfe0b, 0xfe0a, 0xfe09, 0xfe08, 0xff02, 0xffce]);

export interface ClientHello {
  readonly kind: "hello";
  /** in lower case without a final dot; null where the client named none */
  readonly serverName: string | null;
  /** whether there is an encrypted one within, or what looks like it, so that the name may not be the real one */
  readonly ech: boolean;
  readonly alpn: readonly string[];
}

export type HelloResult = ClientHello | { readonly kind: "more" } | { readonly kind: "bad"; readonly reason: string };

const more: HelloResult = { kind: "more" };

/**
 * Reads the first flight of a TLS client, however TCP and the client cut it. What comes out depends on the bytes only, not on their
 * pieces; nothing past the record that ends the ClientHello is looked at. At most 64 KiB in 64 records of 16 KiB.
 */
export class ClientHelloReader {
  readonly #received = new ByteCollector();
  readonly #message = new ByteCollector();
  #parsed = 0;
  #records = 0;
  #result: HelloResult = more;

  /** All that was pushed, for passing on; good until the next `push`. */
  get received(): Buffer {
    return this.#received.bytes;
  }

  push(chunk: Buffer): HelloResult {
    if (this.#result.kind === "bad") return this.#result; // keeps no more of it
    this.#received.add(chunk);
    while (this.#result.kind === "more" && this.#nextRecord());
    return this.#result;
  }

  /** Whether there was one to read. */
  #nextRecord(): boolean {
    const bytes = this.received.subarray(this.#parsed);
    const length = this.#recordLength(bytes);
    if (length === null || bytes.length < 5 + length) return false;
    this.#message.add(bytes.subarray(5, 5 + length));
    this.#parsed += 5 + length;
    this.#records += 1;
    this.#result = readMessage(this.#message.bytes);
    return true;
  }

  /** Null while the header is not there, and for one that is refused. */
  #recordLength(bytes: Buffer): number | null {
    const [type, major] = bytes;
    if (type === undefined) return null;
    if (type !== handshakeRecord) return this.#refuse("not a TLS handshake");
    if (major !== undefined && major !== 3) return this.#refuse("an unknown version of TLS");
    if (bytes.length < 5) return null;
    const length = bytes.readUInt16BE(3);
    if (length === 0 || length > maxRecord) return this.#refuse("a record of a length that is not allowed");
    if (this.#records === maxRecords) return this.#refuse(`a ClientHello in more than ${maxRecords} records`);
    if (this.#parsed + 5 + length > maxBytes) return this.#refuse(`a ClientHello of more than ${maxBytes} bytes`);
    return length;
  }

  #refuse(reason: string): null {
    this.#result = { kind: "bad", reason };
    return null;
  }
}

function readMessage(message: Buffer): HelloResult {
  if (message[0] !== clientHelloMessage) return { kind: "bad", reason: "not a ClientHello" };
  if (message.length < 4) return more;
  const length = message.readUIntBE(1, 3);
  if (length > maxBytes) return { kind: "bad", reason: `a ClientHello of more than ${maxBytes} bytes` };
  if (message.length < 4 + length) return more;
  if (message.length > 4 + length) return { kind: "bad", reason: "something after the ClientHello in its record" };
  try {
    return readHello(new ByteReader(message.subarray(4)));
  } catch (error) {
    if (error instanceof RangeError) return { kind: "bad", reason: `a malformed ClientHello: ${error.message}` };
    throw error;
  }
}

/** Source: RFC 8446, section 4.1.2 */
function readHello(body: ByteReader): ClientHello {
  if (body.uint(1) !== 3) throw new RangeError("its version is unknown");
  body.take(1 + 32); // the version's second byte, random
  body.vector(1, 0, 32); // session identifier
  if (body.vector(2, 2, 0xfffe).left % 2 !== 0) throw new RangeError("half a cipher suite");
  body.vector(1, 1, 0xff); // compression methods
  let serverName: string | null = null;
  let alpn: readonly string[] = [];
  const seen = new Set<number>();
  const extensions = body.left === 0 ? null : body.vector(2, 0, 0xffff);
  body.end();
  while (extensions !== null && extensions.left > 0) {
    const type = extensions.uint(2);
    const data = extensions.vector(2, 0, 0xffff);
    if (seen.has(type)) throw new RangeError("an extension is there twice");
    seen.add(type);
    if (type === serverNameExtension) serverName = readServerName(data);
    else if (type === alpnExtension) alpn = readAlpn(data);
  }
  return { kind: "hello", serverName, ech: [...seen].some((type) => echExtensions.has(type)), alpn };
}

/** Source: RFC 6066, section 3 */
function readServerName(data: ByteReader): string {
  const list = data.vector(2, 1, 0xffff);
  data.end();
  if (list.uint(1) !== 0) throw new RangeError("its server name is of an unknown type");
  const name = parseHostName(list.vector(2, 1, 0xffff).rest().toString("latin1"));
  if (list.left > 0) throw new RangeError("it has more than one server name");
  if (name === null) throw new RangeError("its server name is not a host name");
  return name;
}

/** Source: RFC 7301, section 3.1 */
function readAlpn(data: ByteReader): string[] {
  const list = data.vector(2, 2, 0xffff);
  data.end();
  const protocols: string[] = [];
  while (list.left > 0) protocols.push(list.vector(1, 1, 0xff).rest().toString("latin1"));
  return protocols;
}

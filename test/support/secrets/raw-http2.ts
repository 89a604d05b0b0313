const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const [data, headersFrame, settings, continuation] = [0, 1, 4, 9];
const [endStream, endHeaders] = [1, 4];

type Field = readonly [string, string];

/** Of RFC 9113, section 4.1 */
function frame(type: number, flags: number, stream: number, payload: Buffer): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head.writeUInt8(type, 3);
  head.writeUInt8(flags, 4);
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, payload]);
}

/** As literals that are not indexed (RFC 7541, section 6.2.2), of less than 127 bytes each. */
function block(fields: readonly Field[]): Buffer {
  const text = (each: string): Buffer => Buffer.concat([Buffer.from([each.length]), Buffer.from(each, "latin1")]);
  return Buffer.concat(fields.flatMap(([name, value]) => [Buffer.from([0]), text(name), text(value)]));
}

/** A connection's first bytes, with one request that no library would send. */
interface RawRequest {
  /** what is wrong with it; also the value of its field x-case */
  readonly name: string;
  readonly bytes: string;
  /** whether it arrives all the same, without the field that is wrong, as HTTP/2 has it */
  readonly arrives: boolean;
}

/** With all kinds of faults, and one without. */
export function rawHttp2(host: string, authorization: string): RawRequest[] {
  const bearer: Field = ["authorization", authorization.replace(/^Authorization: /, "")];
  const smuggled = `GET /smuggled HTTP/1.1\r\nHost: ${host}\r\n\r\n`;
  const pseudo: Record<string, string> = {
    ":method": "POST",
    ":scheme": "https",
    ":path": "/record",
    ":authority": host,
  };
  const made: RawRequest[] = [];
  const add = (
    name: string,
    change: {
      pseudo?: Record<string, string>;
      first?: Field[];
      fields?: Field[];
      body?: string;
      arrives?: boolean;
      pieces?: boolean;
    },
  ): void => {
    const { first = [], fields = [], body = "", arrives = false, pieces = false } = change;
    const named = Object.entries({ ...pseudo, ...change.pseudo });
    const whole = block([...first, ...named, ["x-case", name], bearer, ...fields]);
    const end = body === "" ? endStream : 0;
    const cuts = [1, 12, 30, 41];
    const head = pieces
      ? [
          frame(headersFrame, end, 1, whole.subarray(0, 1)),
          // more would be taken for a flood
          ...cuts.map((at, index) => frame(continuation, 0, 1, whole.subarray(at, cuts[index + 1] ?? -1))),
          frame(continuation, endHeaders, 1, whole.subarray(-1)),
        ]
      : [frame(headersFrame, endHeaders | end, 1, whole)];
    const content = body === "" ? [] : [frame(data, endStream, 1, Buffer.from(body))];
    const start = [Buffer.from(preface), frame(settings, 0, 0, Buffer.alloc(0))];
    made.push({ name, arrives, bytes: Buffer.concat([...start, ...head, ...content]).toString("latin1") });
  };
  add("nothing", { arrives: true });
  add("nothing in a block over many frames", { pieces: true, arrives: true });
  add("CR and LF in a value", { fields: [["x-a", "b\r\nx-smuggled: c"]], arrives: true });
  add("LF in a value", { fields: [["x-a", `b\n\n${smuggled}`]], arrives: true });
  add("a zero character in a value", { fields: [["x-smuggled", "b\0c"]], arrives: true });
  add("CR and LF in a name", { fields: [["x-a: b\r\nx-smuggled", "d"]], arrives: true });
  add("CR and LF in the path", { pseudo: { ":path": "/record HTTP/1.1\r\nx: y\r\n\r\n" } });
  add("a space in the path", { pseudo: { ":path": "/record HTTP/1.1" } });
  add("a whole URL as the path", { pseudo: { ":path": `https://evil.example.net/smuggled` } });
  add("no slash before the path", { pseudo: { ":path": "smuggled" } });
  add("CR and LF in the method", { pseudo: { ":method": "GET /smuggled HTTP/1.1\r\nx: y\r\n\r\nGET" } });
  add("CR and LF in the authority", { pseudo: { ":authority": `${host}\r\nx: y` } });
  add("a transfer coding", { fields: [["transfer-encoding", "chunked"]], body: `0\r\n\r\n${smuggled}` });
  add("a length that is too short", { fields: [["content-length", "3"]], body: `abc${smuggled}` });
  add("a length that is too long", { fields: [["content-length", "300"]], body: "abc" });
  add("two lengths", {
    fields: [
      ["content-length", "3"],
      ["content-length", "4"],
    ],
    body: "abcd",
  });
  add("two authorities", { first: [[":authority", "evil.example.net"]] });
  add("two paths", { first: [[":path", "/smuggled"]] });
  add("another host in Host", { fields: [["host", "evil.example.net"]] });
  add("a pseudo field behind the others", { first: [["x-first", "a"]] });
  add("an upper-case name", { fields: [["X-Upper", "a"]] });
  add("a field of the connection", { fields: [["connection", "close, authorization"]] });
  add("CONNECT", { pseudo: { ":method": "CONNECT", ":authority": "evil.example.net:443" } });
  return made;
}

/** Vectors and ClientHellos with whatever in them, also what no client would send. */

export function vector(size: 1 | 2 | 3, ...parts: readonly Buffer[]): Buffer {
  const body = Buffer.concat(parts);
  const length = Buffer.alloc(size);
  length.writeUIntBE(body.length, 0, size);
  return Buffer.concat([length, body]);
}

export function extension(type: number, data: Buffer): Buffer {
  return Buffer.concat([Buffer.from([type >> 8, type & 0xff]), vector(2, data)]);
}

export function serverName(...names: readonly (string | Buffer)[]): Buffer {
  const entries = names.map((name) =>
    Buffer.concat([Buffer.from([0]), vector(2, Buffer.from(name as string, "latin1"))]),
  );
  return extension(0, vector(2, ...entries));
}

export interface HelloParts {
  readonly type?: number;
  readonly version?: readonly [number, number];
  readonly session?: Buffer;
  readonly ciphers?: Buffer;
  readonly compression?: Buffer;
  /** null leaves even the length of the extensions out */
  readonly extensions?: readonly Buffer[] | null;
  /** after the extensions */
  readonly trailing?: Buffer;
}

/** The handshake message, without records. */
export function helloMessage(parts: HelloParts = {}): Buffer {
  const extensions = parts.extensions === undefined ? [serverName("a.example.org")] : parts.extensions;
  const body = Buffer.concat([
    Buffer.from(parts.version ?? [3, 3]),
    Buffer.alloc(32, 7),
    vector(1, parts.session ?? Buffer.alloc(0)),
    vector(2, parts.ciphers ?? Buffer.from([0x13, 0x01])),
    vector(1, parts.compression ?? Buffer.from([0])),
    extensions === null ? Buffer.alloc(0) : vector(2, ...extensions),
    parts.trailing ?? Buffer.alloc(0),
  ]);
  return Buffer.concat([Buffer.from([parts.type ?? 1]), vector(3, body)]);
}

/** Records of the given sizes, the last of which is as long as it has to be. */
export function records(message: Buffer, sizes: readonly number[] = [], type = 22): Buffer {
  const parts: Buffer[] = [];
  let rest = message;
  for (const size of [...sizes, Infinity]) {
    parts.push(Buffer.from([type, 3, 1]), vector(2, rest.subarray(0, size)));
    rest = rest.subarray(size);
    if (rest.length === 0) break;
  }
  return Buffer.concat(parts);
}

export function helloFor(...names: readonly string[]): Buffer {
  return records(helloMessage({ extensions: names.length === 0 ? [] : [serverName(...names)] }));
}

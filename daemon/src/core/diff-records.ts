/** Bytes before the texts of a record; native/src/compare.h describes them. */
const headBytes = 72;
const pathBytes = 1_048_576;
const targetBytes = 4096;
const attributeBytes = 1_048_576;

const kinds = ["same", "added", "modified", "deleted", "metadata"] as const;
const differences = ["mode", "owner", "mtime", "xattrs", "content", "type"] as const;

/** Names of types, by the upper four bits of a mode. */
const types: Readonly<Record<number, FileType>> = {
  1: "fifo",
  2: "character",
  4: "directory",
  6: "block",
  8: "file",
  10: "symlink",
  12: "socket",
};

export type FileType = "fifo" | "character" | "directory" | "block" | "file" | "symlink" | "socket";

/** One entry of a comparison. Everything in it was chosen by whoever wrote the files. */
export interface DiffRecord {
  readonly kind: (typeof kinds)[number];
  /** null where it is absent */
  readonly oldType: FileType | null;
  readonly newType: FileType | null;
  readonly changes: readonly (typeof differences)[number][];
  /** of the new side, or of the old one where there is no new, as are the others that follow */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtimeS: number;
  /** bytes of the content or of the link's target */
  readonly oldSize: number;
  readonly newSize: number;
  /** without "/" at its ends; empty for the root directory */
  readonly path: Buffer;
  readonly target: Buffer;
  readonly xattrs: ReadonlyMap<string, Buffer>;
  /** as it is written in stat's `st_rdev` */
  readonly device: number;
  readonly oldContentSize: number;
  readonly newContentSize: number;
}

/** Reads the content that belongs to the record before; what is not read is passed over. */
interface Contents {
  before(): AsyncIterable<Buffer>;
  after(): AsyncIterable<Buffer>;
}

/** Reads the records of a comparison. Throws `RangeError` for what is none, and where the last one is cut off. */
export async function* readRecords(chunks: AsyncIterable<Buffer>): AsyncGenerator<DiffRecord & { contents: Contents }> {
  const source = new ByteSource(chunks);
  for (;;) {
    const head = await source.atMost(headBytes);
    if (head.length === 0) return;
    const record = await readRecord(source, head);
    const left = { old: record.oldContentSize, new: record.newContentSize };
    const take = async function* (side: "old" | "new"): AsyncGenerator<Buffer> {
      while (left[side] > 0) {
        const piece = await source.some(left[side]);
        left[side] -= piece.length;
        yield piece;
      }
    };
    const skip = async (side: "old" | "new"): Promise<void> => {
      while (left[side] > 0) left[side] -= (await source.some(left[side])).length;
    };
    const contents: Contents = {
      before: () => take("old"),
      async *after() {
        await skip("old");
        yield* take("new");
      },
    };
    yield { ...record, contents };
    await skip("old");
    await skip("new");
  }
}

async function readRecord(source: ByteSource, head: Buffer): Promise<DiffRecord> {
  if (head.length < headBytes) throw new RangeError("a record is cut off");
  const kind = kinds[head.readUInt8(0)];
  if (kind === undefined) throw new RangeError("a record is of no known kind");
  const bits = head.readUInt8(3);
  const [path, target, xattrs] = [head.readUInt32LE(40), head.readUInt32LE(44), head.readUInt32LE(48)];
  if (path > pathBytes || target > targetBytes || xattrs > attributeBytes)
    throw new RangeError("a record is larger than any can be");
  return {
    kind,
    oldType: typeOf(head.readUInt8(1)),
    newType: typeOf(head.readUInt8(2)),
    changes: differences.filter((_, bit) => (bits & (1 << bit)) !== 0),
    mode: head.readUInt32LE(4),
    uid: head.readUInt32LE(8),
    gid: head.readUInt32LE(12),
    mtimeS: safe(head.readBigInt64LE(16)),
    oldSize: safe(head.readBigUInt64LE(24)),
    newSize: safe(head.readBigUInt64LE(32)),
    device: head.readUInt32LE(52),
    oldContentSize: safe(head.readBigUInt64LE(56)),
    newContentSize: safe(head.readBigUInt64LE(64)),
    path: await source.exactly(path),
    target: await source.exactly(target),
    xattrs: readAttributes(await source.exactly(xattrs)),
  };
}

function typeOf(number: number): FileType | null {
  if (number === 0) return null;
  const type = types[number];
  if (type === undefined) throw new RangeError("a record is of no known type");
  return type;
}

function safe(value: bigint): number {
  const number = Number(value);
  if (!Number.isSafeInteger(number)) throw new RangeError("a record has a number that is too large");
  return number;
}

/** Names hold a byte in each character (latin1). */
function readAttributes(bytes: Buffer): Map<string, Buffer> {
  const attributes = new Map<string, Buffer>();
  for (let at = 0; at < bytes.length;) {
    if (bytes.length - at < 8) throw new RangeError("an attribute is cut off");
    const name = at + 8;
    const value = name + bytes.readUInt32LE(at);
    const end = value + bytes.readUInt32LE(at + 4);
    if (end > bytes.length) throw new RangeError("an attribute is cut off");
    attributes.set(bytes.toString("latin1", name, value), bytes.subarray(value, end));
    at = end;
  }
  return attributes;
}

/** Cuts a stream of bytes into pieces of the sizes that are asked for. */
class ByteSource {
  readonly #chunks: AsyncIterator<Buffer>;
  #rest: Buffer = Buffer.alloc(0);

  constructor(chunks: AsyncIterable<Buffer>) {
    this.#chunks = chunks[Symbol.asyncIterator]();
  }

  /** At least one byte and at most `most`. Throws `RangeError` at the end. */
  async some(most: number): Promise<Buffer> {
    while (this.#rest.length === 0) if (!(await this.#more())) throw new RangeError("a record is cut off");
    const piece = this.#rest.subarray(0, most);
    this.#rest = this.#rest.subarray(piece.length);
    return piece;
  }

  /** Fewer only at the end. */
  async atMost(size: number): Promise<Buffer> {
    const pieces: Buffer[] = [];
    let missing = size;
    while (missing > 0 && (this.#rest.length > 0 || (await this.#more()))) {
      const piece = this.#rest.subarray(0, missing);
      this.#rest = this.#rest.subarray(piece.length);
      missing -= piece.length;
      pieces.push(piece);
    }
    return Buffer.concat(pieces);
  }

  async exactly(size: number): Promise<Buffer> {
    const bytes = await this.atMost(size);
    if (bytes.length < size) throw new RangeError("a record is cut off");
    return bytes;
  }

  async #more(): Promise<boolean> {
    const next = await this.#chunks.next();
    if (next.done === true) return false;
    this.#rest = next.value;
    return true;
  }
}

import { randomBytes } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Bucket, ObjectHeaders, Segment } from "./bucket.js";
import type { Checksum } from "./receive.js";
import { S3Error } from "./s3-error.js";

export interface Part extends Segment {
  readonly number: number;
  readonly etag: string;
  readonly modifiedMs: number;
  readonly checksum: Checksum | null;
}

export interface Upload {
  readonly id: string;
  readonly key: string;
  readonly startedMs: number;
  readonly headers: ObjectHeaders;
  readonly parts: readonly Part[];
}

/** What a client says that its object consists of. */
export interface NamedPart {
  readonly number: number;
  readonly etag: string;
  /** by names as in `Checksum` */
  readonly checksums: Readonly<Record<string, string>>;
}

const leastPartBytes = 5 * 1024 ** 2;

/** The uploads in parts that are under way in a bucket, in its folder. */
export class Uploads {
  readonly #bucket: Bucket;
  readonly #uploads = new Map<string, Upload>();

  constructor(bucket: Bucket) {
    this.#bucket = bucket;
    mkdirSync(this.#folder, { recursive: true });
    for (const name of readdirSync(this.#folder)) {
      if (!name.endsWith(".json")) continue;
      const upload = JSON.parse(readFileSync(join(this.#folder, name), "utf8")) as Upload;
      this.#uploads.set(upload.id, upload);
    }
  }

  get #folder(): string {
    return join(this.#bucket.folder, "uploads");
  }

  start(upload: Pick<Upload, "key" | "startedMs" | "headers">): Upload {
    const started = { ...upload, id: randomBytes(24).toString("base64url"), parts: [] };
    this.#keep(started);
    return started;
  }

  /** Throws `S3Error`. */
  find(id: string, key: string): Upload {
    const upload = this.#uploads.get(id);
    if (upload?.key !== key) throw new S3Error("NoSuchUpload", "The specified multipart upload does not exist.");
    return upload;
  }

  /** In the order of keys and then of their start. */
  sorted(): Upload[] {
    return [...this.#uploads.values()].sort(
      (a, b) => Buffer.compare(Buffer.from(a.key), Buffer.from(b.key)) || a.startedMs - b.startedMs,
    );
  }

  /** Takes a part, in place of one with the same number. Throws `S3Error` where the upload has ended meanwhile. */
  add(upload: Pick<Upload, "id" | "key">, part: Part): void {
    const current = this.find(upload.id, upload.key);
    const others = current.parts.filter(({ number }) => number !== part.number);
    this.#keep({ ...current, parts: [...others, part].sort((a, b) => a.number - b.number) });
    this.#discard(current.parts.filter(({ number }) => number === part.number));
  }

  /** The parts that an object is to have. Throws `S3Error`. */
  chosen(upload: Upload, named: readonly NamedPart[]): Part[] {
    if (named.length === 0) throw new S3Error("MalformedXML", "there are no parts");
    const parts = named.map(({ number, etag, checksums }, index) => {
      if (number <= (named[index - 1]?.number ?? 0))
        throw new S3Error("InvalidPartOrder", "The list of parts was not in ascending order.");
      const part = upload.parts.find((each) => each.number === number);
      if (part?.etag.replaceAll('"', "") !== etag.replaceAll('"', ""))
        throw new S3Error("InvalidPart", `Part ${number} could not be found, or its entity tag did not match.`);
      for (const [name, value] of Object.entries(checksums))
        if (part.checksum?.name !== name || part.checksum.value !== value)
          throw new S3Error("InvalidPart", `The ${name} of part ${number} is another.`);
      return part;
    });
    if (parts.slice(0, -1).some(({ size }) => size < leastPartBytes))
      throw new S3Error("EntityTooSmall", "Your proposed upload is smaller than the minimum allowed size");
    return parts;
  }

  /** Ends an upload; the content of the parts in `kept` is an object's from now on. */
  end(upload: Upload, kept: readonly Part[]): void {
    const current = this.find(upload.id, upload.key);
    rmSync(join(this.#folder, `${upload.id}.json`), { force: true });
    this.#uploads.delete(upload.id);
    this.#discard(current.parts.filter((part) => !kept.includes(part)));
  }

  #keep(upload: Upload): void {
    const file = join(this.#folder, `${upload.id}.json`);
    writeFileSync(`${file}.new`, JSON.stringify(upload));
    renameSync(`${file}.new`, file);
    this.#uploads.set(upload.id, upload);
  }

  #discard(parts: readonly Part[]): void {
    for (const { file } of parts) rmSync(this.#bucket.pathOf(file), { force: true });
  }
}

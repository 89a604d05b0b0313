import { randomBytes } from "node:crypto";
import { mkdirSync, mkdtempSync, rmSync, truncateSync } from "node:fs";
import { open } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Hosted, type Enter } from "./hosted.js";
import type { S3HostCalls, S3HostOptions } from "./s3-server-host.js";
import type { SeenRequest, Switches } from "./server/s3-service.js";
import type { S3Access, S3Credentials } from "./server/signature.js";

/** What a client needs of any S3 that tests start. */
export interface S3Place extends AsyncDisposable {
  /** such as "http://127.0.0.1:40123" */
  readonly endpoint: string;
  readonly region: string;
  readonly bucket: string;
  readonly credentials: S3Credentials;
}

export interface S3ServerOptions {
  /** where the objects are, which outlive it then; default: a folder of its own, removed with it */
  readonly folder?: string;
  readonly bucket?: string;
  readonly region?: string;
  /** hosts "<bucket>.<domain>" mean that bucket; default "s3.test" */
  readonly domain?: string;
  /** default: any; that of one that was killed lets its clients find the next */
  readonly port?: number;
  /** with these it speaks TLS; in PEM */
  readonly tls?: { readonly key: string; readonly cert: string };
  /** who may come in; the first are `credentials`. Default: one without a session token */
  readonly access?: readonly S3Access[];
  /** where it is to run, such as `TestNetns.enter` bound to one; its loopback is there then */
  readonly enter?: Enter;
}

/**
 * An S3 of the tests' own on loopback, in a process of its own: strongly consistent, with conditional writes, and strict, so that whatever AWS
 * refuses of what it knows, it refuses. See server/operations.ts for what it knows.
 */
export class S3Server implements S3Place {
  readonly endpoint: string;
  readonly port: number;
  readonly region: string;
  readonly bucket: string;
  readonly credentials: S3Credentials;
  readonly folder: string;
  readonly #hosted: Hosted<S3HostCalls>;
  readonly #removes: boolean;

  private constructor(hosted: Hosted<S3HostCalls>, port: number, facts: S3HostOptions & { readonly removes: boolean }) {
    const { service, switches, removes } = facts;
    this.#hosted = hosted;
    this.#removes = removes;
    this.port = port;
    this.endpoint = `${service.tls ? "https" : "http"}://127.0.0.1:${port}`;
    this.region = service.region;
    this.bucket = service.bucket;
    this.folder = service.folder;
    this.credentials = switches.access[0] ?? newCredentials();
  }

  static async start(options: S3ServerOptions = {}): Promise<S3Server> {
    const folder = options.folder ?? mkdtempSync(join(tmpdir(), "sqt-s3-"));
    mkdirSync(folder, { recursive: true });
    const service = {
      folder,
      bucket: options.bucket ?? "test-bucket",
      region: options.region ?? "eu-test-1",
      domain: options.domain ?? "s3.test",
      port: options.port ?? 0,
      ...(options.tls && { tls: options.tls }),
    };
    const switches: Switches = { skewMs: 0, hasBucket: true, access: options.access ?? [newCredentials()] };
    const start: S3HostOptions = { service, switches };
    const { hosted, ready } = await Hosted.start<S3HostCalls, number>("s3/s3-server-host.js", start, options.enter);
    return new S3Server(hosted, ready, { ...start, removes: options.folder === undefined });
  }

  get pid(): number {
    return this.#hosted.pid;
  }

  /** Changes its clock, whether it has its bucket, or who may come in. Holds for requests that come from now on. */
  async set(changes: Partial<Switches>): Promise<void> {
    await this.#hosted.call("set", changes);
  }

  /** Requests that are over, in the order in which they were; all, or those after the first so many. */
  async seen(from = 0): Promise<SeenRequest[]> {
    return this.#hosted.call("seen", from);
  }

  /** The requests that were over while that was done. */
  async seenDuring(work: () => Promise<unknown>): Promise<SeenRequest[]> {
    const { length } = await this.seen();
    await work();
    return this.seen(length);
  }

  /** How many requests are there whose bodies have begun and not ended. */
  async receiving(): Promise<number> {
    return this.#hosted.call("receiving");
  }

  /**
   * The files that hold the content of an object, in their order: one, or one for each part of an upload in parts. They may be read, and written
   * to spoil it. Throws when there is no such object.
   */
  async filesOf(key: string): Promise<{ path: string; size: number }[]> {
    const files = await this.#hosted.call("filesOf", key);
    if (files === null) throw new Error(`there is no object "${key}"`);
    return files;
  }

  /** Flips all bits of a byte of an object's content. */
  async corrupt(key: string, offset: number): Promise<void> {
    let at = offset;
    for (const { path, size } of await this.filesOf(key)) {
      if (at < size) {
        await flip(path, at);
        return;
      }
      at -= size;
    }
    throw new Error(`object "${key}" has no byte ${offset}`);
  }

  /** Cuts the last file of an object's content; what S3 says about its size stays as it was. */
  async truncate(key: string, size: number): Promise<void> {
    const file = (await this.filesOf(key)).at(-1);
    if (file !== undefined) truncateSync(file.path, size);
  }

  /** Kills it, and removes its folder if that is its own. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#hosted[Symbol.asyncDispose]();
    if (this.#removes) rmSync(this.folder, { recursive: true, force: true });
  }
}

/** Credentials that nobody else has. */
export function newCredentials(): S3Credentials {
  return {
    accessKeyId: `AKIA${randomBytes(8).toString("hex").toUpperCase()}`,
    secretAccessKey: randomBytes(20).toString("hex"),
  };
}

async function flip(path: string, offset: number): Promise<void> {
  await using file = await open(path, "r+");
  const byte = Buffer.alloc(1);
  await file.read(byte, 0, 1, offset);
  byte[0] = ~(byte[0] ?? 0) & 255;
  await file.write(byte, 0, 1, offset);
}

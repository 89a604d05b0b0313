import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import type { Config } from "../config.js";
import { Blobs } from "../s3/blobs.js";
import { Bucket } from "../s3/bucket.js";
import { Cipher } from "../s3/cipher.js";
import { BucketFiles } from "../s3/files.js";
import { ModuleObjects } from "../s3/module-objects.js";
import { OlderObjects } from "../s3/older-objects.js";
import { SandboxObjects } from "../s3/sandbox-objects.js";
import { SealedJson } from "../s3/sealed-json.js";
import { SealedStore } from "../s3/sealed-store.js";
import { SnapshotObjects } from "../s3/snapshot-objects.js";
import { readKey } from "../secrets/read-key.js";
import { sweepFolder } from "./sweep-folder.js";

/** The bucket that is configured, by what lies in it. */
export interface BucketParts {
  readonly bucket: Bucket;
  /** the same, for objects that are encrypted where there is a key */
  readonly sealed: SealedStore;
  readonly blobs: Blobs;
  readonly files: BucketFiles;
  readonly json: SealedJson;
  readonly modules: ModuleObjects;
  readonly snapshots: SnapshotObjects;
  readonly sandboxes: SandboxObjects;
  /** what older daemons have put there */
  readonly older: OlderObjects;
  /** where files lie that are on their way; its content survives a restart */
  readonly folder: string;
}

/** null where no bucket is configured. Throws an Error for the operator where the key file cannot be used. */
export async function openBucket(config: Config): Promise<BucketParts | null> {
  const { s3Bucket, s3Endpoint, s3Region, s3Prefix } = config;
  if (s3Bucket === "") return null;
  const folder = join(config.dataDir, "cache", "s3");
  await mkdir(folder, { recursive: true, mode: 0o700 });
  await sweepFolder(folder);
  const cipher = config.s3KeyFile === "" ? null : new Cipher(await readBucketKey(config.s3KeyFile));
  const bucket = new Bucket({
    bucket: s3Bucket,
    endpoint: s3Endpoint,
    region: s3Region,
    prefix: s3Prefix,
    credentials: credentialsOf(config),
    timeoutMs: config.s3TimeoutS * 1_000,
    encryption: config.s3Sse === "" ? null : { algorithm: config.s3Sse, kmsKeyId: config.s3SseKmsKeyId },
  });
  const blobs = new Blobs(bucket, cipher);
  const files = new BucketFiles(bucket, blobs, { folder, canKeepWhole: cipher === null });
  const sealed = new SealedStore(bucket, cipher);
  const json = new SealedJson(sealed);
  const modules = new ModuleObjects(bucket, json, join(folder, "modules.json"));
  const snapshots = new SnapshotObjects(bucket, json);
  const sandboxes = new SandboxObjects(bucket, sealed);
  const older = new OlderObjects(bucket, { isOn: cipher === null });
  return { bucket, sealed, blobs, files, json, modules, snapshots, sandboxes, older, folder };
}

function credentialsOf({ s3AccessKeyId, s3SecretAccessKey, s3SessionToken }: Config): {
  accessKeyId: string;
  secretAccessKey: string;
  sessionToken?: string;
} | null {
  if (s3AccessKeyId === "") return null;
  const token = s3SessionToken === "" ? {} : { sessionToken: s3SessionToken };
  return { accessKeyId: s3AccessKeyId, secretAccessKey: s3SecretAccessKey, ...token };
}

/** Throws an Error for the operator where the file is not as that of the secrets' key must be. */
async function readBucketKey(path: string): Promise<Buffer> {
  return readKey(path).catch((cause: Error) => {
    throw new Error(`SQUASH_S3_KEY_FILE: ${cause.message}`, { cause });
  });
}

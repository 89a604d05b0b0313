import type { SquashdOptions } from "../squashd.js";
import { TestSquashd } from "../squashd.js";
import type { S3Place } from "./s3-server.js";

/** A squashd whose modules and snapshots are kept there; it shares this process's loopback, and its sandboxes have no network. */
export function squashdWithBucket(place: S3Place, options: SquashdOptions = {}): TestSquashd {
  const { env, ...rest } = options;
  return new TestSquashd({ ...rest, here: true, env: { ...bucketSettings(place), ...env } });
}

/** Settings by which a squashd finds the bucket. */
export function bucketSettings({ endpoint, bucket, region, credentials }: S3Place): Record<string, string> {
  return {
    SQUASH_SUBNET: "none",
    SQUASH_S3_ENDPOINT: endpoint,
    SQUASH_S3_BUCKET: bucket,
    SQUASH_S3_REGION: region,
    SQUASH_S3_PREFIX: "team/",
    SQUASH_S3_ACCESS_KEY_ID: credentials.accessKeyId,
    SQUASH_S3_SECRET_ACCESS_KEY: credentials.secretAccessKey,
    // comparisons that are not asked for would make it a matter of luck what is done
    SQUASH_SYNC_INTERVAL: "0",
  };
}

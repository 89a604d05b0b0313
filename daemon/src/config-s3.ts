import { absolutePath, integer, oneOf, token, type Setting } from "./config-parsers.js";

/** Settings of the bucket that modules and snapshots are kept in. */
export const s3Settings = {
  s3Bucket: {
    env: "SQUASH_S3_BUCKET",
    fallback: "",
    parse: bucketName,
    doc: "bucket of an S3-compatible store that modules and snapshots are kept in; empty for none",
  },
  s3Endpoint: {
    env: "SQUASH_S3_ENDPOINT",
    fallback: "",
    parse: endpoint,
    doc: "URL of the store, spoken to with the bucket in the path; empty for Amazon's",
  },
  s3Region: {
    env: "SQUASH_S3_REGION",
    fallback: "us-east-1",
    parse: region,
    doc: "region that requests are signed for",
  },
  s3Prefix: {
    env: "SQUASH_S3_PREFIX",
    fallback: "",
    parse: prefix,
    doc: "what all keys begin with, as it is: give the slash at its end as well",
  },
  s3AccessKeyId: {
    env: "SQUASH_S3_ACCESS_KEY_ID",
    aliases: ["SQUASH_S3_ACCESS_KEY"],
    fallback: "",
    parse: token,
    doc: "who asks; empty for the usual chain: AWS_ACCESS_KEY_ID, files, container, instance",
  },
  s3SecretAccessKey: {
    env: "SQUASH_S3_SECRET_ACCESS_KEY",
    aliases: ["SQUASH_S3_SECRET_KEY"],
    fallback: "",
    parse: token,
    secret: true,
    doc: "its secret",
  },
  s3SessionToken: {
    env: "SQUASH_S3_SESSION_TOKEN",
    fallback: "",
    parse: token,
    secret: true,
    doc: "token of credentials for a time; empty for none",
  },
  s3Sse: {
    env: "SQUASH_S3_SSE",
    fallback: "",
    parse: oneOf("", "AES256", "aws:kms"),
    doc: "how the store is to encrypt what it keeps: `AES256`, `aws:kms`, or empty for its own default",
  },
  s3SseKmsKeyId: {
    env: "SQUASH_S3_SSE_KMS_KEY_ID",
    fallback: "",
    parse: token,
    doc: "key for `aws:kms`; empty for the account's",
  },
  s3KeyFile: {
    env: "SQUASH_S3_KEY_FILE",
    fallback: "",
    parse: (text: string) => (text === "" ? text : absolutePath(text)),
    doc: "file with the key of 32 bytes that all is encrypted with before it is sent; empty for none",
  },
  s3TimeoutS: {
    env: "SQUASH_S3_TIMEOUT_S",
    fallback: "30",
    parse: integer(1, 600),
    doc: "seconds that the store may be silent for, after which a request is tried again",
  },
  ephemeral: {
    env: "SQUASH_EPHEMERAL",
    fallback: "",
    parse: oneOf("", "1"),
    doc: "`1`: the bucket is where sandboxes are kept, and any machine goes on with one; needs SQUASH_S3_BUCKET",
  },
  checkpointS: {
    env: "SQUASH_CHECKPOINT_INTERVAL",
    fallback: "300",
    parse: integer(1, 86_400),
    doc: "seconds between two times that a sandbox is saved, with SQUASH_EPHEMERAL",
  },
  leaseS: {
    env: "SQUASH_LEASE_S",
    fallback: "60",
    parse: integer(6, 3_600),
    doc: "seconds for which a machine has a sandbox unless it renews that, with SQUASH_EPHEMERAL",
  },
  drainS: {
    env: "SQUASH_DRAIN_S",
    fallback: "60",
    parse: integer(1, 3_600),
    doc: "seconds that saving all sandboxes may take at the end, with SQUASH_EPHEMERAL",
  },
  syncIntervalS: {
    env: "SQUASH_SYNC_INTERVAL",
    fallback: "300",
    parse: integer(0, 86_400),
    doc: "seconds between two times that modules and snapshots are compared with the bucket; 0 for at the start only",
  },
} as const satisfies Readonly<Record<string, Setting<unknown>>>;

function bucketName(text: string): string {
  if (text !== "" && !/^[A-Za-z0-9][A-Za-z0-9._-]{1,254}$/.test(text)) throw new Error("must be the name of a bucket");
  return text;
}

function endpoint(text: string): string {
  if (text === "") return text;
  const url = URL.canParse(text) ? new URL(text) : null;
  if (url === null || !["http:", "https:"].includes(url.protocol) || url.search !== "" || url.username !== "")
    throw new Error("must be a URL such as https://s3.example.com:9000");
  return text.replace(/\/+$/, "");
}

function region(text: string): string {
  if (!/^[a-z0-9-]{1,64}$/.test(text)) throw new Error("must be a region such as us-east-1");
  return text;
}

function prefix(text: string): string {
  if (!/^[A-Za-z0-9!_.*'()/-]{0,512}$/.test(text) || text.startsWith("/"))
    throw new Error("must have only A-Z a-z 0-9 ! _ . * ' ( ) - and /, and not begin with /");
  return text;
}

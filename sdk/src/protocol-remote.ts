/** The bucket that modules and snapshots are kept in, as the API shows it; a part of the wire contract in protocol.ts. */

/** One thing that is still to be done in the bucket. */
export interface QueueEntryInfo {
  kind: "module" | "snapshot" | "remove-snapshot";
  /** name of a module, or id@label of a snapshot */
  subject: string;
  added: string;
  /** tries that have failed */
  attempts: number;
  /** when it is tried next; null for as soon as possible */
  next: string | null;
  /** of the last try */
  error: string | null;
  code: string | null;
}

export interface RemoteStatus {
  /** null where none is configured */
  bucket: string | null;
  /** null for Amazon's */
  endpoint: string | null;
  prefix: string;
  /** whether all is encrypted before it is sent */
  encrypted: boolean;
  /** things that wait to be sent */
  queued: number;
  /** of the last comparison with the bucket that came to its end; null for none yet */
  last_sync: string | null;
  /** why the last one did not; null where it did */
  sync_error: string | null;
}

/** A module in the bucket. */
export interface RemoteModuleInfo {
  name: string;
  /** of its image; null where it cannot be read */
  format: "squashfs" | "erofs" | null;
  /** bytes; 0 where it cannot be read */
  size: number;
  /** null where it cannot be read, or where an older daemon has put it there */
  sha256: string | null;
  /** whether this machine has it too, or another one of that name */
  here: "same" | "different" | "no";
  /** whether it lies there in the form of an older daemon */
  older: boolean;
  /** why it cannot be read, as where it is damaged */
  problem: string | null;
}

/** A snapshot in the bucket. */
export interface RemoteSnapshotInfo {
  id: string;
  label: string;
  /** null where it cannot be read */
  created: string | null;
  /** bytes of all its images; 0 where it cannot be read */
  size: number;
  /** none where it cannot be read, or where an older daemon has put it there, which does not say them */
  layers: string[];
  /** whether it lies there in the form of an older daemon */
  older: boolean;
  /** why it cannot be read; null where it can */
  problem: string | null;
}

/** What is sent or fetched. */
interface Transfer {
  /** a module; absent with `sandbox` absent too: all modules */
  module?: string;
  /** a sandbox: all its snapshots, or the one of `label` */
  sandbox?: string;
  label?: string;
  /**
   * whether what is there under the same name may be replaced, for modules; a push sends all of what is named anew, so that what is damaged in the
   * bucket is whole again, for snapshots as well
   */
  replace?: boolean;
}

export interface PushJob extends Transfer {
  kind: "push";
}

export interface PullJob extends Transfer {
  kind: "pull";
}

/** Compares all with the bucket, and sends and fetches what is missing. */
export interface SyncJob {
  kind: "sync";
  /** only this sandbox's snapshots, both ways */
  sandbox?: string;
}

/** Looks whether all that the bucket says it has is there. */
export interface VerifyJob {
  kind: "s3-verify";
  /** reads every byte, in distinction to asking for sizes only */
  deep?: boolean;
}

/** Removes from the bucket what nothing names. */
export interface BucketCollectJob {
  kind: "s3-gc";
  dry_run?: boolean;
  /** what is younger stays, in seconds; @default 86400 */
  grace_s?: number;
}

export type RemoteJob = PushJob | PullJob | SyncJob | VerifyJob | BucketCollectJob;

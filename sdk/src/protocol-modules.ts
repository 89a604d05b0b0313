/** Modules as `GET /v1/modules` shows them; a part of the wire contract in protocol.ts. */

export type ModuleFormat = "squashfs" | "erofs";

/** What a module says of how its programs are started. */
export interface ModuleDefaults {
  env: Record<string, string>;
  /** absolute path; "" for none */
  workdir: string;
  /** name or number; "" for none */
  user: string;
  entrypoint: string[];
  cmd: string[];
}

/** One module, as every route shows it. */
export interface ModuleInfo {
  name: string;
  /** bytes of the image; 0 for remote ones */
  size: number;
  location: "local" | "remote";
  /** of the image that a sandbox would get */
  format: ModuleFormat;
  /** of all its images that this machine can use */
  formats: ModuleFormat[];
  /** of that image, by its manifest; null where it has none */
  sha256: string | null;
  created: string | null;
  /** what made it, such as `mkbase debian` */
  source: string | null;
  /** modules that a stack with this one must have */
  requires: string[];
  /** modules that it must not have */
  conflicts: string[];
  /** how its programs are meant to be started; null where it does not say */
  defaults: ModuleDefaults | null;
  /** ids of the sandboxes that use it */
  used_by: string[];
  /** why it cannot be used, and what to do; null where nothing is known against it */
  problem: string | null;
}

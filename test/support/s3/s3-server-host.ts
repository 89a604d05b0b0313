import { host } from "./hosted.js";
import { S3Service, type SeenRequest, type ServiceOptions, type Switches } from "./server/s3-service.js";

/** What a test S3 is started with: see s3-server.ts. */
export interface S3HostOptions {
  readonly service: ServiceOptions;
  readonly switches: Switches;
}

/** What it can be asked. */
export interface S3HostCalls {
  readonly [name: string]: (...args: never[]) => unknown;
  readonly set: (changes: Partial<Switches>) => void;
  /** those that are over, from the one with that index on */
  readonly seen: (from: number) => SeenRequest[];
  /** how many bodies are being received */
  readonly receiving: () => number;
  readonly filesOf: (key: string) => { path: string; size: number }[] | null;
}

host(async ({ service: options, switches }: S3HostOptions) => {
  const service = new S3Service(options, switches);
  const calls: S3HostCalls = {
    set: (changes: Partial<Switches>) => service.set(changes),
    seen: (from: number) => service.seen.slice(from),
    receiving: () => service.receiving,
    filesOf: (key: string) => service.filesOf(key),
  };
  return { ready: await service.listen(), calls };
});

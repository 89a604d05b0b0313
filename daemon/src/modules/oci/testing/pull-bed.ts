import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { BlobCache } from "../blob-cache.js";
import type { LocalImage } from "../image.js";
import { parsePlatform } from "../platform.js";
import { parseReference } from "../reference.js";
import { pullImage, type PullOptions } from "../registry-source.js";
import { FakeRegistry } from "./fake-registry.js";
import { makeImage, type TestImage } from "./images.js";

export const platform = parsePlatform("linux/amd64");

/** An image of three layers, the second one of which is larger than what connections hold. */
export function makePulledImage(): Promise<TestImage> {
  const big = { name: "big", content: "0123456789abcdef".repeat(20_000) };
  return makeImage(
    [
      { members: [{ name: "a" }], compression: "gzip" },
      { members: [big] },
      { members: [{ name: "c" }], compression: "zstd" },
    ],
    { architecture: "amd64" },
  );
}

/** A registry, and a cache of its own to pull into. */
export class PullBed implements AsyncDisposable {
  readonly registry = new FakeRegistry();
  readonly dataDir = mkdtempSync(join(tmpdir(), "squash-registry-"));

  async start(): Promise<this> {
    await this.registry.start();
    return this;
  }

  pull(tag = ":t", options: Partial<PullOptions> = {}): Promise<LocalImage> {
    const reference = parseReference(`${this.registry.host}/team/image${tag}`);
    return pullImage(reference, { platform, cache: new BlobCache(this.dataDir), delayMs: 1, ...options });
  }

  cacheFiles(): string[] {
    return readdirSync(join(this.dataDir, "cache/oci/sha256"));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.registry[Symbol.asyncDispose]();
    rmSync(this.dataDir, { recursive: true });
  }
}

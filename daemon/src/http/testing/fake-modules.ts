import type { ModuleInfo } from "@squash/sdk/protocol";
import { SquashError } from "@squash/sdk/errors";
import type { ModuleService, ModuleUpload } from "../../core/service.js";

/** Modules in memory, for tests of routes. It keeps what it was sent. */
export class FakeModules implements ModuleService {
  readonly modules = new Map<string, ModuleInfo>([["000-base", fakeModule("000-base")]]);
  readonly uploads: (Omit<ModuleUpload, "body" | "signal"> & { readonly text: string })[] = [];

  list(): Promise<ModuleInfo[]> {
    return Promise.resolve([...this.modules.values()]);
  }

  get(name: string): Promise<ModuleInfo> {
    const found = this.modules.get(name);
    if (found !== undefined) return Promise.resolve(found);
    return Promise.reject(new SquashError("module_not_found", `Cannot find module "${name}"`));
  }

  async remove(name: string): Promise<void> {
    await this.get(name);
    this.modules.delete(name);
  }

  async put(name: string, { body, signal: _, ...rest }: ModuleUpload): Promise<ModuleInfo> {
    const chunks: Uint8Array[] = [];
    for await (const chunk of body) chunks.push(chunk);
    this.uploads.push({ ...rest, text: Buffer.concat(chunks).toString() });
    this.modules.set(name, fakeModule(name));
    return this.get(name);
  }

  trust(name: string): Promise<ModuleInfo> {
    return this.get(name);
  }
}

function fakeModule(name: string): ModuleInfo {
  return {
    name,
    size: 1,
    location: "local",
    format: "erofs",
    formats: ["erofs"],
    sha256: "0".repeat(64),
    created: "2026-01-01T00:00:00Z",
    source: "a test",
    requires: [],
    conflicts: [],
    defaults: null,
    used_by: [],
    problem: null,
  };
}

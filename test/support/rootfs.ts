import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { buffer } from "node:stream/consumers";
import { pack, type Header } from "tar-stream";

type Entry = Partial<Header> & { readonly name: string; readonly content?: string | Buffer };

const mtime = new Date("2024-02-03T04:05:06Z");

/** What a distribution's root file system has, as far as it can make trouble, on a BusyBox. */
const entries: readonly Entry[] = [
  { name: "./", type: "directory" },
  ...["bin", "dev", "etc", "home", "proc", "root", "run", "sys", "tmp", "usr/bin", "var/tmp"].map((name): Entry => ({
    name: `./${name}/`,
    type: "directory",
    mode: name.endsWith("tmp") ? 0o1777 : 0o755,
  })),
  { name: "./bin/busybox", content: readFileSync("/bin/busybox"), mode: 0o755 },
  { name: "./bin/hardlink", type: "link", linkname: "./bin/busybox" },
  ...["sh", "cat", "stat", "find", "ls", "id", "readlink"].map((name): Entry => ({
    name: `./bin/${name}`,
    type: "symlink",
    linkname: "busybox",
  })),
  { name: "./etc/passwd", content: "root:x:0:0:root:/root:/bin/sh\n" },
  { name: "./etc/group", content: "root:x:0:\n" },
  { name: "./etc/marker", content: "from the tar file\n", mode: 0o640, uid: 12, gid: 34 },
  { name: "./etc/mtab", type: "symlink", linkname: "../proc/mounts" },
  { name: "./usr/bin/setuid", content: "#!/bin/sh\n", mode: 0o4755 },
  { name: "./run/pipe", type: "fifo" },
  { name: "./dev/null", type: "character-device", devmajor: 1, devminor: 3, mode: 0o666 },
  { name: "./dev/sda", type: "block-device", devmajor: 8, devminor: 0 },
  { name: "./var/ünïcödé name", content: "x" },
];

/** A small root file system as a tar file, with further entries where there are any. */
export function makeRootfs(more: readonly Entry[] = []): Promise<Buffer> {
  const tar = pack();
  for (const { content = "", ...header } of [...entries, ...more]) tar.entry({ mtime, ...header }, content);
  tar.finalize();
  return buffer(tar);
}

/** Packs as distributions do. */
export function compress(program: "gzip" | "xz" | "zstd", bytes: Buffer): Buffer {
  return execFileSync(program, ["-c", "-1"], { input: bytes, maxBuffer: 2 ** 28, stdio: ["pipe", "pipe", "ignore"] });
}

export function sha256Of(bytes: Buffer): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/** A web server on loopback for a few files; a file that is null never comes to its end. */
export class FileServer implements AsyncDisposable {
  readonly files = new Map<string, Buffer | null>();
  readonly #server: Server;
  readonly #asked = new Set<string>();

  constructor() {
    this.#server = createServer((request, response) => {
      const name = (request.url ?? "").slice(1);
      const file = this.files.get(name);
      if (file === undefined) response.writeHead(404).end();
      else if (file === null) response.write("the start of it");
      else response.end(file);
      this.#asked.add(name);
    });
  }

  async start(): Promise<this> {
    await new Promise<void>((done) => this.#server.listen(0, "127.0.0.1", done));
    return this;
  }

  /** Serves a file, and returns the arguments for mkbase. */
  serve(name: string, file: Buffer | null): string[] {
    this.files.set(name, file);
    const { port } = this.#server.address() as AddressInfo;
    return ["--url", `http://127.0.0.1:${port}/${name}`, "--sha256", sha256Of(file ?? Buffer.alloc(0))];
  }

  wasAskedFor(name: string): boolean {
    return this.#asked.has(name);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((done) => this.#server.close(done));
  }
}

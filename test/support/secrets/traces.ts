import { closeSync, openSync, readFileSync, readSync, readdirSync, readlinkSync } from "node:fs";
import { join } from "node:path";

const window = 1_048_576;

/** All forms in which bytes are looked for: as they are, in base64 at each alignment, for URLs, in JSON, and in hexadecimal digits. */
export function formsOf(secret: string): ReadonlyMap<string, Buffer> {
  const bytes = Buffer.from(secret);
  const forms = new Map<string, Buffer>([
    ["raw", bytes],
    ["hex", Buffer.from(bytes.toString("hex"))],
    ["HEX", Buffer.from(bytes.toString("hex").toUpperCase())],
    ["percent", Buffer.from([...bytes].map((byte) => `%${byte.toString(16).padStart(2, "0")}`).join(""))],
    ["PERCENT", Buffer.from([...bytes].map((byte) => `%${byte.toString(16).padStart(2, "0").toUpperCase()}`).join(""))],
    ["url", Buffer.from(encodeURIComponent(secret))],
    ["json", Buffer.from(JSON.stringify(secret).slice(1, -1))],
    ["utf-16", Buffer.from(secret, "utf16le")],
  ]);
  for (const alphabet of ["base64", "base64url"] as const)
    for (const before of [0, 1, 2]) {
      const text = Buffer.concat([Buffer.alloc(before), bytes])
        .toString(alphabet)
        .replace(/=+$/, "");
      // its first and last digits depend on what is around
      const begin = before === 0 ? 0 : before + 1;
      forms.set(
        `${alphabet}+${before}`,
        Buffer.from(text.slice(begin, (bytes.length + before) % 3 === 0 ? undefined : -1)),
      );
    }
  return forms;
}

/** Looks for a secret in all its forms. `found` is where it was: place and form. */
export class Traces {
  readonly found: string[] = [];
  /** bytes that were looked at, and how many files, texts and memories */
  looked = 0;
  places = 0;
  readonly #forms: ReadonlyMap<string, Buffer>;
  readonly #longest: number;

  constructor(secret: string) {
    this.#forms = formsOf(secret);
    this.#longest = Math.max(...[...this.#forms.values()].map((form) => form.length));
  }

  /** In a text or bytes. */
  inText(place: string, content: string | Uint8Array): void {
    this.places++;
    this.#look(place, typeof content === "string" ? Buffer.from(content) : Buffer.from(content));
  }

  /** In all files of a folder, in their names and in what links lead to; no link is followed. `leftOut` are paths below it. */
  inFolder(folder: string, leftOut: readonly string[] = []): void {
    for (const entry of readdirSync(folder, { withFileTypes: true })) {
      const path = join(folder, entry.name);
      if (leftOut.includes(path)) continue;
      this.#look(path, Buffer.from(entry.name));
      if (entry.isDirectory()) this.inFolder(path, leftOut);
      else if (entry.isFile()) this.#inFile(path);
      else if (entry.isSymbolicLink()) this.#look(path, Buffer.from(readlinkSync(path)));
    }
  }

  /** In what the kernel shows of a process, and in all of its memory that can be read. */
  inProcess(pid: number): void {
    for (const name of ["cmdline", "environ", "comm", "status", "maps"])
      this.inText(`${pid} ${name}`, readFileSync(`/proc/${pid}/${name}`));
    const memory = openSync(`/proc/${pid}/mem`, "r");
    try {
      for (const line of readFileSync(`/proc/${pid}/maps`, "latin1").split("\n")) {
        const [, from = "", to = "", rest = ""] = /^([0-9a-f]+)-([0-9a-f]+) r(.*)$/.exec(line) ?? [];
        if (from !== "" && !/\[v(var|syscall|var_vclock)\]$/.test(rest))
          this.#inRange(`${pid} memory ${rest.slice(20)}`, memory, parseInt(from, 16), parseInt(to, 16));
      }
      this.places++;
    } finally {
      closeSync(memory);
    }
  }

  #inFile(path: string): void {
    this.places++;
    const file = openSync(path, "r");
    try {
      this.#inRange(path, file, 0, Number.MAX_SAFE_INTEGER);
    } finally {
      closeSync(file);
    }
  }

  #inRange(place: string, file: number, from: number, to: number): void {
    const buffer = Buffer.alloc(window + this.#longest);
    let kept = 0;
    for (let at = from; at < to;) {
      let count = 0;
      try {
        count = readSync(file, buffer, kept, Math.min(window, to - at), at);
      } catch (error) {
        // a part of a mapping that lies behind the end of its file
        if (!["EIO", "EFAULT"].includes((error as NodeJS.ErrnoException).code ?? "")) throw error;
      }
      if (count === 0) return;
      this.#look(place, buffer.subarray(0, kept + count));
      const rest = Math.min(kept + count, this.#longest - 1);
      buffer.copyWithin(0, kept + count - rest, kept + count);
      kept = rest;
      at += count;
    }
  }

  #look(place: string, bytes: Buffer): void {
    this.looked += bytes.length;
    for (const [form, wanted] of this.#forms) if (bytes.includes(wanted)) this.found.push(`${place}: ${form}`);
  }
}

import { createHash } from "node:crypto";
import { open, type FileHandle } from "node:fs/promises";
import { SquashError, isSquashError } from "@squash/sdk/errors";
import { aboutOf, aboutProblem, type ModuleAbout } from "./module-about.js";
import { checkImage } from "./superblock.js";

/** an image stays a multiple of it, as loop devices and file systems count */
const blockBytes = 4_096;
const maxTextBytes = 65_536;
const magic = Buffer.from("squash manifest\n", "latin1");
const version = 1;

/** The last bytes of a file that has a trailer: magic, version, bytes of the text before them, eight zeroes, sha-256 of that text. */
const footer = { bytes: 64, version: 16, length: 20, zeroes: 24, digest: 32 } as const;

/**
 * Writes what a manifest says about the module behind the file system of an image, which the kernel does not look at, so that it goes wherever
 * the image goes. The same facts give the same bytes. Throws `build_failed` for what would be refused where it is read.
 */
export async function appendTrailer(path: string, facts: ModuleAbout): Promise<void> {
  const about = aboutOf(facts);
  const text = Buffer.from(JSON.stringify(about));
  const problem = text.length > maxTextBytes ? `takes ${text.length} bytes, at most ${maxTextBytes} are kept` : null;
  const refusal = problem ?? aboutProblem(about);
  if (refusal !== null)
    throw new SquashError("build_failed", `Cannot make module "${about.name}": what its manifest says ${refusal}`);
  await using file = await open(path, "r+");
  const { size } = await file.stat();
  const foot = Buffer.alloc(footer.bytes);
  magic.copy(foot);
  foot.writeUInt32LE(version, footer.version);
  foot.writeUInt32LE(text.length, footer.length);
  digestOf(text).copy(foot, footer.digest);
  const end = Math.ceil((size + text.length + foot.length) / blockBytes) * blockBytes;
  const bytes = Buffer.concat([Buffer.alloc(end - size - text.length - foot.length), text, foot]);
  for (let done = 0; done < bytes.length;)
    done += (await file.write(bytes, done, bytes.length - done, size + done)).bytesWritten;
}

/**
 * What an image says about itself; null where it says nothing. Only what lies behind the file system counts: the end of a file in it may look
 * like anything. Throws `module_invalid` for a trailer that is damaged or of another version: without it, what it says would be lost in silence.
 */
export async function readTrailer(path: string, name: string): Promise<ModuleAbout | null> {
  await using file = await open(path, "r");
  const { size } = await file.stat();
  const end = await endOf(path, name);
  if (end === null || size - end < footer.bytes) return null;
  const foot = await readAt(file, size - footer.bytes, footer.bytes);
  if (!foot.subarray(0, magic.length).equals(magic)) return null;
  const refuse = (what: string, cause?: unknown): SquashError => refused(name, what, { end, cause });
  const found = foot.readUInt32LE(footer.version);
  if (found !== version) throw refuse(`is of version ${found}, this squashd reads ${version}`);
  const length = foot.readUInt32LE(footer.length);
  if (length > maxTextBytes || length > size - end - footer.bytes) throw refuse(`has an impossible length, ${length}`);
  if (foot.readBigUInt64LE(footer.zeroes) !== 0n) throw refuse("is damaged");
  const text = await readAt(file, size - footer.bytes - length, length);
  if (!digestOf(text).equals(foot.subarray(footer.digest))) throw refuse("is damaged: its sha-256 is another one");
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(text));
  } catch (cause) {
    throw refuse("is not JSON", cause);
  }
  const problem = aboutProblem(value);
  if (problem !== null) throw refuse(problem);
  return value as ModuleAbout;
}

/** null for what is no image, which is refused by who uses it. */
async function endOf(path: string, name: string): Promise<number | null> {
  try {
    return (await checkImage(path, name)).end;
  } catch (error) {
    if (isSquashError(error)) return null;
    throw error;
  }
}

async function readAt(file: FileHandle, position: number, length: number): Promise<Buffer> {
  const { bytesRead, buffer } = await file.read(Buffer.alloc(length), 0, length, position);
  return buffer.subarray(0, bytesRead);
}

function digestOf(text: Buffer): Buffer {
  return createHash("sha256").update(text).digest();
}

function refused(
  name: string,
  what: string,
  { end, cause }: { readonly end: number; readonly cause: unknown },
): SquashError {
  const hint = `the first ${end} bytes of the file are the image without it`;
  return new SquashError("module_invalid", `Cannot take module "${name}": the manifest in its image ${what}; ${hint}`, {
    cause,
    details: { module: name },
  });
}

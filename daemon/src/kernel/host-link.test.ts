import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, describe, expect, it, vi } from "vitest";
import { isSquashError } from "@squash/sdk/errors";
import { FieldWriter } from "./frame.js";
import { HostLink } from "./host-link.js";
import { cellDiedEvent, operation } from "./host-protocol.js";

const folder = mkdtempSync(join(tmpdir(), "host-link-test-"));
const links: HostLink[] = [];
let counter = 0;

afterEach(() => {
  vi.useRealTimers();
  for (const link of links.splice(0)) link.end();
});
afterAll(() => rmSync(folder, { recursive: true }));

interface Heard {
  readonly link: HostLink;
  readonly deaths: string[];
  readonly closed: string[];
}

/**
 * Starts a program in place of sq-host that runs `script` with the link as `link`; `answer(frame, status, payload)` answers, and `each(f)`
 * calls `f` with every request. It ends when the link does.
 */
function start(script: string): Heard {
  const binary = join(folder, `host-${++counter}`);
  const prelude = `
    const { Socket } = require("node:net");
    const link = new Socket({ fd: 3 });
    link.on("error", () => process.exit(0)).on("end", () => process.exit(0)).resume();
    const frame = (type, id, status, payload) => {
      const header = Buffer.alloc(12);
      header.writeUInt32LE(payload.length, 0);
      header.writeUInt32LE(id, 4);
      header.writeUInt16LE(type, 8);
      header.writeUInt16LE(status, 10);
      return Buffer.concat([header, payload]);
    };
    const answer = (request, status, payload) => link.write(frame(request.type, request.id, status, payload));
    const each = (serve) => {
      let bytes = Buffer.alloc(0);
      link.on("data", (chunk) => {
        bytes = Buffer.concat([bytes, chunk]);
        while (bytes.length >= 12 && bytes.length >= 12 + bytes.readUInt32LE(0)) {
          const request = { id: bytes.readUInt32LE(4), type: bytes.readUInt16LE(8) };
          bytes = bytes.subarray(12 + bytes.readUInt32LE(0));
          serve(request);
        }
      });
    };
    const text = (what) => Buffer.concat([Buffer.from([what.length, 0, 0, 0]), Buffer.from(what)]);
  `;
  writeFileSync(binary, `#!${process.execPath}\n${prelude}\n${script}\n`, { mode: 0o755 });
  return open(binary);
}

function open(binary: string): Heard {
  const deaths: string[] = [];
  const closed: string[] = [];
  const link = new HostLink(binary, {
    packetLogged: () => undefined,
    firewallGone: () => undefined,
    cellDied: (index, pid) => deaths.push(`${index} ${pid}`),
    closed: (reason) => closed.push(reason),
  });
  links.push(link);
  return { link, deaths, closed };
}

async function failure(asked: Promise<unknown>): Promise<string> {
  try {
    await asked;
  } catch (error) {
    return isSquashError(error) ? `${error.code}: ${error.message}` : `not a SquashError: ${String(error)}`;
  }
  return "no error";
}

const nothing = new FieldWriter();

describe("HostLink", () => {
  it("gives each answer to who asked, in whatever order they come", async () => {
    const { link } = start(`
      const asked = [];
      each((request) => {
        asked.push(request);
        if (asked.length < 3) return;
        for (const one of asked.reverse()) answer(one, 0, Buffer.from([one.type, 0, 0, 0]));
      });`);
    const answers = await Promise.all([
      link.request("layerList", nothing),
      link.request("cellMake", nothing),
      link.request("cellKill", nothing),
    ]);
    expect(answers.map((fields) => fields.u32())).toEqual([
      operation.layerList,
      operation.cellMake,
      operation.cellKill,
    ]);
  });

  it("names the step and the errno of a failure, also one that nobody has a name for", async () => {
    const { link } = start(`each((request) => answer(request, request.type === 2 ? 28 : 60000, text("make /l/x")));`);
    await expect(link.request("layerMount", nothing)).rejects.toMatchObject({
      code: "kernel",
      message: "Cannot make /l/x: ENOSPC",
      details: { errno: "ENOSPC", step: "make /l/x" },
    });
    expect(await failure(link.request("cellMake", nothing))).toBe("kernel: Cannot make /l/x: errno 60000");
  });

  it.each([
    [5, "EIO"],
    [15, "ENOTBLK"],
    [74, "EBADMSG"],
    [95, "ENOTSUP"],
    [117, "EUCLEAN"],
    [122, "EDQUOT"],
  ])("knows errno %i, with which a damaged image may be refused, as %s", async (status, name) => {
    const { link } = start(`each((request) => answer(request, ${status}, text("mount")));`);
    await expect(link.request("layerMount", nothing)).rejects.toMatchObject({ details: { errno: name } });
  });

  it("tells of deaths, and ignores answers to what nobody asked", async () => {
    const { link, deaths, closed } = start(`
      link.write(frame(${cellDiedEvent}, 0, 0, Buffer.from([3, 0, 0, 0, 77, 0, 0, 0])));
      link.write(frame(5, 4242, 0, Buffer.alloc(0)));
      each((request) => answer(request, 0, Buffer.alloc(0)));`);
    await link.request("cellMake", nothing);
    expect(deaths).toEqual(["3 77"]);
    expect(closed).toEqual([]);
  });

  const senseless: Readonly<Record<string, string>> = {
    "a frame that is too large": `each(() => link.write(Buffer.alloc(12, 0xff)));`,
    "a failure without a text": `each((request) => answer(request, 5, Buffer.alloc(0)));`,
    "a failure whose text is cut off": `each((request) => answer(request, 5, Buffer.from([9, 0, 0, 0, 65])));`,
    "a death without a number": `each(() => link.write(frame(${cellDiedEvent}, 0, 0, Buffer.alloc(4))));`,
  };

  it.each(Object.entries(senseless))("fails everything that waits when sq-host sends %s", async (_, script) => {
    const { link, closed } = start(script);
    const asked = [failure(link.request("cellMake", nothing)), failure(link.request("cellKill", nothing))];
    for (const text of await Promise.all(asked)) expect(text).toMatch(/^kernel: Cannot do cell.*makes no sense/);
    expect(closed).toHaveLength(1);
    expect(await failure(link.request("cellMake", nothing))).toBe("kernel: Cannot do cellMake: sq-host is gone");
  });

  it("fails everything that waits when sq-host ends, with what it said last", async () => {
    const { link, closed } = start(
      `each(() => { process.stderr.write("no such kernel"); setTimeout(() => process.exit(70), 20); });`,
    );
    expect(await failure(link.request("cellMake", nothing))).toMatch(/^kernel: Cannot do cellMake: sq-host /);
    expect(closed).toHaveLength(1);
  });

  it("fails everything that waits when the program cannot be started", async () => {
    const { link, closed } = open(join(folder, "none"));
    expect(await failure(link.request("hello", nothing))).toMatch(/^kernel: Cannot do hello: /);
    expect(closed).toHaveLength(1);
  });

  it("gives up on an sq-host that does not answer, and ends it", async () => {
    const { link, closed } = start(`each(() => undefined);`);
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    const asked = failure(link.request("cellMake", nothing));
    await vi.advanceTimersByTimeAsync(30_000);
    expect(await asked).toMatch(/did not answer cellMake within 30000 ms/);
    expect(closed).toHaveLength(1);
    vi.useRealTimers();
    const pid = link.pid ?? -1;
    await expect.poll(() => isAlive(pid)).toBe(false);
  });
});

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false; // reaped
  }
}

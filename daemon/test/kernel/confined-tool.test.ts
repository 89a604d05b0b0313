import { execFileSync } from "node:child_process";
import {
  existsSync,
  lstatSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { lacks } from "../../../test/support/needs.js";
import { repositoryRoot } from "../../../test/support/root.js";
import { hasUserAttributes } from "../../../test/support/user-attributes.js";
import { makeWorkshop, takeFile, type Workshop } from "../../src/modules/confined-tool.js";

let scratch: string;
let workshop: Workshop;
let input: string;

beforeEach(async () => {
  scratch = mkdtempSync(join(tmpdir(), "sqt-workshop-"));
  input = join(scratch, "input");
  writeFileSync(input, "what it reads", { mode: 0o644 });
  workshop = await makeWorkshop(scratch, { input });
});
afterEach(() => rmSync(scratch, { recursive: true }));

const limits = { op: "test", target: "it", deadlineMs: 20_000 };
const shell = (script: string): Promise<string> => workshop.run(["sh", "-c", script], limits);

describe.skipIf(lacks("root"))("a confined tool", () => {
  it("reads its input, and writes in its directory, as one who is nobody outside", async () => {
    await workshop.run(["cp", input, join(workshop.work, "copy")], limits);
    await shell("chown 12:34 /room/copy; mkdir /room/tree; mkfifo /room/tree/pipe");
    const { uid, gid } = statSync(join(workshop.work, "copy"));
    expect([uid % 65_536, gid % 65_536]).toEqual([12, 34]);
    expect(uid).toBeGreaterThan(1_000_000);
    expect(statSync(workshop.work).uid).toBeGreaterThan(1_000_000);
  });

  it("sets marks of overlayfs, which it may not, under names that anybody may give, where it is told to load what does that", async () => {
    const marks = join(repositoryRoot, "native/build/free-marks.so");
    const set = ["opaque", "other"].map((name) => `setfattr -h -n trusted.overlay.${name} -v y /room/marked`);
    const script = `mkdir -p /room/marked; ${set.join("; ")}; setfattr -h -n user.own -v z /room/marked`;
    await expect(workshop.run(["sh", "-euc", script], limits)).rejects.toThrow(/not permitted/i);
    rmSync(join(scratch, "work"), { recursive: true });
    rmSync(join(scratch, "jail"), { recursive: true });
    const loaded = await makeWorkshop(scratch, { preload: marks });
    const marking = loaded.run(["env", `LD_PRELOAD=${marks}`, "sh", "-euc", script], limits);
    if (hasUserAttributes()) {
      await marking;
      const list = ["-d", "-m", "-", "--absolute-names", join(loaded.work, "marked")];
      const found = execFileSync("getfattr", list).toString();
      expect(found.match(/^[a-z].*/gm)).toEqual(['user.overlay.opaque="y"', 'user.own="z"']);
    } else await expect(marking).rejects.toThrow(/not supported/i);
    const write = loaded.run(["sh", "-c", "echo x >>/preload"], limits);
    await expect(write).rejects.toMatchObject({ code: "build_failed" });
  });

  it("takes its standard input, and its environment", async () => {
    expect(
      await workshop.run(["sh", "-c", "cat; echo $MARK"], { ...limits, stdin: "fed ", env: { MARK: "marked" } }),
    ).toBe("fed marked\n");
  });

  it.each([
    ["no file of the host", "ls -d /etc/passwd /root /home /tmp /data /var /dev/zero 2>/dev/null | wc -l", "0"],
    ["no process", "ls /proc | wc -l", "0"],
    ["no network but a closed loopback", "ip -o link | wc -l; ip -o link | grep -c 'state UP'", "1\n0"],
    [
      "no place to write but its own",
      "for f in /x /usr/x /input /etc/x; do touch $f; done 2>/dev/null; ls /x /usr/x /etc/x 2>/dev/null",
      "",
    ],
    ["no device to make", "mknod /room/null c 1 3 2>/dev/null || echo refused", "refused"],
    ["no mount to make", "mount -t tmpfs none /room 2>/dev/null || echo refused", "refused"],
    ["no network namespace to make", "unshare --net true 2>/dev/null || echo refused", "refused"],
    [
      "no program of its own that gives rights",
      "cp /bin/busybox /room/x 2>/dev/null; chmod 4755 /room/x; /room/x true 2>/dev/null || echo refused",
      "refused",
    ],
  ])("has %s", async (_, script, expected) => {
    expect((await shell(`${script}; true`)).trim()).toBe(expected);
  });

  it("leaves its input as it is", async () => {
    await shell("echo changed >/input; chmod 777 /input; rm -f /input; true");
    expect(readFileSync(input, "utf8")).toBe("what it reads");
    expect(statSync(input).mode & 0o777).toBe(0o644);
  });

  it("ends with all that it started, and leaves no mount", async () => {
    const abort = new AbortController();
    const running = workshop.run(["sh", "-c", "sleep 4242 & setsid sleep 4243 & touch /room/up; wait"], {
      ...limits,
      signal: abort.signal,
    });
    await expect.poll(() => existsSync(join(workshop.work, "up"))).toBe(true);
    abort.abort();
    await expect(running).rejects.toMatchObject({ code: "cancelled" });
    await expect.poll(() => sleepers().filter((line) => /424[23]/.test(line))).toEqual([]);
    expect(readFileSync("/proc/self/mountinfo", "utf8")).not.toContain(scratch);
  });

  it("fails with its own status and words", async () => {
    await expect(shell("echo what is wrong >&2; exit 3")).rejects.toMatchObject({
      code: "build_failed",
      message: /status 3: what is wrong/,
    });
  });

  it("cannot lead the taking of its file anywhere else", async () => {
    const target = join(scratch, "taken");
    for (const plant of ["ln -s /etc/shadow image", "mkdir image", "mkfifo image"]) {
      await shell(`cd /room; rm -rf image; ${plant}`);
      await expect(takeFile(join(workshop.work, "image"), target)).rejects.toMatchObject({ code: "build_failed" });
      expect(existsSync(target)).toBe(false);
    }
    await shell("cd /room; rm -rf image; echo made >image");
    await takeFile(join(workshop.work, "image"), target);
    expect(readFileSync(target, "utf8")).toBe("made\n");
    symlinkSync("/etc/passwd", join(scratch, "link"));
    await expect(takeFile(join(workshop.work, "image"), join(scratch, "link"))).rejects.toThrow(/EEXIST/);
  });
});

function sleepers(): string[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map((pid) => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ");
      } catch {
        return ""; // it has ended
      }
    })
    .filter((line) => line.startsWith("sleep "));
}

describe.skipIf(lacks("root"))("a confined tool that is root", () => {
  const asRoot = (script: string): Promise<string> => workshop.runTrusted(["sh", "-c", script], limits);

  it("sets and reads marks of overlayfs, and makes whiteouts", async () => {
    await asRoot("mkdir /room/tree; mknod /room/tree/gone c 0 0; chown 12:34 /room/tree");
    execFileSync("setfattr", ["-n", "trusted.overlay.opaque", "-v", "y", join(workshop.work, "tree")]);
    await workshop.runTrusted(
      ["mksquashfs", join(workshop.work, "tree"), join(workshop.work, "image"), "-quiet", "-no-progress", "-xattrs"],
      limits,
    );
    const unpack = ["unsquashfs", "-quiet", "-no-progress", "-strict-errors", "-dest", join(workshop.work, "again")];
    await workshop.runTrusted([...(unpack as ["unsquashfs"]), join(workshop.work, "image")], limits);
    const again = join(workshop.work, "again");
    expect(execFileSync("getfattr", ["-h", "-d", "-m", "trusted", again], { encoding: "utf8" })).toContain(
      'opaque="y"',
    );
    const { uid, gid } = statSync(again);
    expect([uid, gid, lstatSync(join(again, "gone")).rdev]).toEqual([12, 34, 0]);
  });

  it.each([
    ["no file of the host", "ls -d /etc/passwd /root /home /tmp /data /var /dev/zero 2>/dev/null | wc -l", "0"],
    ["no process", "ls /proc | wc -l", "0"],
    ["no network but a closed loopback", "ip -o link | wc -l; ip -o link | grep -c 'state UP'", "1\n0"],
    [
      "no place to write but its own",
      "for f in /x /usr/x /input /etc/x; do touch $f; done 2>/dev/null; ls /x /usr/x /etc/x 2>/dev/null",
      "",
    ],
    ["no device to make", "mknod /room/null c 1 3 2>/dev/null || echo refused", "refused"],
  ])("has %s", async (_, script, answer) => {
    expect((await asRoot(`${script}; true`)).trim()).toBe(answer);
  });
});

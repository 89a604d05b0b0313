import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import type { DiffAnswer, Sandbox } from "@squash/sdk";
import { lacks } from "../support/needs.js";
import { useSquashd } from "../support/own-squashd.js";
import { randomNumbers } from "../support/random-numbers.js";

const squashd = useSquashd();

afterEach(async () => {
  await squashd.destroyAll();
  expect(await squashd.client.collect({ dry_run: true })).toEqual({ images: [], files: [], bytes: 0 });
});

async function print(sandbox: Sandbox, command: string): Promise<string> {
  const { exit_code, stdout, stderr } = await sandbox.exec(command);
  expect({ exit_code, stderr }).toEqual({ exit_code: 0, stderr: "" });
  return stdout;
}

function short({ added, modified, deleted, metadata }: DiffAnswer): string[] {
  const list = (letter: string, entries: DiffAnswer["added"]): string[] => entries.map(({ path }) => letter + path);
  return [...list("A", added), ...list("M", modified), ...list("D", deleted), ...list("m", metadata)];
}

describe.skipIf(lacks("root"))("a difference", () => {
  it("is told between snapshots, the present, the base and other sandboxes", async () => {
    const sandbox = await squashd.client.create({ id: "a", layers: ["000-base-test", "100-extra"] });
    await sandbox.snapshot({ label: "live" });
    await print(sandbox, "mkdir /w; echo one >/w/file; ln -s file /w/link; echo x >/w/mode; rm /opt/extra/file");
    await sandbox.snapshot({ label: "one" });
    await print(
      sandbox,
      "echo two >/w/file; ln -sf other /w/link; chmod 600 /w/mode; rm -r /var; echo back >/opt/extra/file",
    );
    expect(short(await sandbox.diff({ from: "@a/live", to: "one" }))).toEqual([
      "A/w",
      "A/w/file",
      "A/w/link",
      "A/w/mode",
      "D/opt/extra/file",
    ]);
    const now = await sandbox.diff();
    expect(now).toMatchObject({ ok: true, from: "one", to: "live", truncated: false });
    expect(now.totals).toEqual({ added: 1, modified: 2, deleted: 2, metadata: 1 });
    expect(short(now)).toEqual(["A/opt/extra/file", "M/w/file", "M/w/link", "D/var", "D/var/tmp", "m/w/mode"]);
    const own = ["A/etc/hostname", "A/etc/hosts", "A/etc/machine-id", "A/etc/resolv.conf"];
    const all = short(await sandbox.diff({ from: "base" }));
    expect(all).toEqual([...own, "A/w", "A/w/file", "A/w/link", "A/w/mode", "M/opt/extra/file", "D/var", "D/var/tmp"]);
    const back = await sandbox.diff({ from: "live", to: "base" });
    expect(back.totals).toEqual({ added: 2, modified: 1, deleted: all.length - 3, metadata: 0 });
    expect(await sandbox.diff({ from: "base", limit: 2 })).toMatchObject({ truncated: true, totals: { deleted: 2 } });

    const [fork] = await sandbox.fork({ target_id: "b", from: "one" });
    await print(fork!, "echo forked >/w/file");
    expect(short(await sandbox.diff({ to: "@b" }))).toContain("M/w/file");
    await fork?.snapshot({ label: "theirs" });
    const other = await sandbox.diff({ from: "@b/theirs", to: "@b" });
    expect(other).toMatchObject({ from: "@b/theirs", to: "@b" });
    expect(other.totals).toEqual({ added: 0, modified: 0, deleted: 0, metadata: 0 });
    await expect(sandbox.diff({ from: "none" })).rejects.toMatchObject({ code: "snapshot_not_found" });
    await expect(sandbox.diff({ from: "@none" })).rejects.toMatchObject({ code: "sandbox_not_found" });
    await expect(sandbox.diff({ from: "../etc" })).rejects.toMatchObject({ code: "invalid_request" });
  });

  it("of one file is a unified diff, unless that cannot be", async () => {
    const sandbox = await squashd.client.create({ id: "c" });
    await print(sandbox, "mkdir /w; printf 'a\\nb\\nc\\n' >/w/text; echo x >/w/same; ln -s /etc/hostname /w/link");
    await print(sandbox, "head -c 2000000 /dev/zero >/w/large; printf '\\000' >/w/zero");
    await sandbox.snapshot({ label: "old" });
    await print(
      sandbox,
      "printf 'a\\nB\\nc\\n' >/w/text; printf '\\000\\001' >/w/zero; echo y >>/w/large; rm /w/link; ln -s /etc /w/link",
    );
    const { kind, diff } = await sandbox.diffFile("/w/text");
    expect({ kind, lines: diff?.split("\n").filter((line) => /^[-+ @]/.test(line)) }).toEqual({
      kind: "modified",
      lines: ["--- a/w/text", "+++ b/w/text", "@@ -1,3 +1,3 @@", " a", "-b", "+B", " c"],
    });
    expect(await sandbox.diffFile("/w/same")).toMatchObject({ kind: "same", diff: "" });
    expect(await sandbox.diffFile("w/zero")).toMatchObject({ kind: "modified", binary: true, diff: null });
    expect(await sandbox.diffFile("/w/large")).toMatchObject({ too_large: true, diff: null });
    expect(await sandbox.diffFile("/w/link")).toMatchObject({
      kind: "modified",
      entry: { type: "symlink" },
      diff: null,
    });
    // what a link in the sandbox names is nothing to go through
    await expect(sandbox.diffFile("/w/link/hostname")).rejects.toMatchObject({ code: "path_not_found" });
    await expect(sandbox.diffFile("/../etc/passwd")).rejects.toMatchObject({ code: "invalid_request" });
  });

  it("as a tar file brings one state to the other", async () => {
    const sandbox = await squashd.client.create({ id: "d" });
    await print(
      sandbox,
      "mkdir -p /w/gone/deep /w/turned; echo 1 >/w/gone/deep/er; echo 2 >/w/stays; echo 3 >/w/dead; : >/w/turned/x",
    );
    await sandbox.snapshot({ label: "old" });
    const long = "n".repeat(200);
    await print(
      sandbox,
      `rm -r /w/gone /w/dead /w/turned; echo now >/w/turned; mkdir -p /w/${long}; echo new >/w/${long}/${long}; ln -s ../../../../etc /w/up
      chown 12:34 /w/stays; chmod 4751 /w/stays; head -c 300000 /dev/urandom >/w/noise`,
    );
    await using folder = await temporaryFolder();
    await writeFile(join(folder.path, "diff.tar"), await sandbox.diffTar());
    execFileSync("tar", ["-xpf", "diff.tar"], { cwd: folder.path });
    const found = execFileSync("find", ["w", "-printf", "%p %y %m %U %G %l\\n"], {
      cwd: folder.path,
      encoding: "utf8",
    });
    expect(
      found
        .trimEnd()
        .split("\n")
        .map((row) => row.trimEnd())
        .toSorted(),
    ).toEqual(
      [
        `w d 755 0 0`,
        `w/.wh.dead f 0 0 0`,
        `w/.wh.gone f 0 0 0`,
        `w/${long} d 755 0 0`,
        `w/${long}/${long} f 644 0 0`,
        `w/noise f 644 0 0`,
        `w/stays f 4751 12 34`,
        `w/turned f 644 0 0`,
        `w/up l 777 0 0 ../../../../etc`,
      ].toSorted(),
    );
    const noise = createHash("md5")
      .update(await readFile(join(folder.path, "w/noise")))
      .digest("hex");
    expect(await print(sandbox, "md5sum /w/noise")).toBe(`${noise}  /w/noise\n`);
    await print(sandbox, ": >/w/.wh.stays");
    await expect(sandbox.diffTar()).rejects.toMatchObject({ code: "diff_failed" });
  });

  it("as a tar file has attributes of users, at each name of a file", async () => {
    const sandbox = await squashd.client.create({ id: "g" });
    await sandbox.snapshot({ label: "old" });
    await print(sandbox, "mkdir /w; echo text >/w/marked; ln /w/marked /w/twin");
    const marked = join(squashd.dataDir, "sandboxes/g/upper.0/data/w/marked");
    execFileSync("setfattr", ["-n", "user.note", "-v", "kept", marked]);
    await using folder = await temporaryFolder();
    await writeFile(join(folder.path, "diff.tar"), await sandbox.diffTar());
    execFileSync("tar", ["--xattrs", "--xattrs-include=*", "-xpf", "diff.tar"], { cwd: folder.path });
    const argv = ["--only-values", "-n", "user.note", "w/marked", "w/twin"];
    expect(execFileSync("getfattr", argv, { cwd: folder.path, encoding: "utf8" })).toBe("keptkept");
  });

  it("that nobody waits for any more leaves nothing, and makes room for others", async () => {
    const sandbox = await squashd.client.create({ id: "h" });
    await print(
      sandbox,
      "mkdir /w; cd /w; for i in $(seq 3000); do echo $i >$i; done; head -c 50000000 /dev/urandom >noise",
    );
    for (let round = 0; round < 12; round++) {
      const gone = AbortSignal.timeout(round * 15);
      const asked = sandbox.diffTar({ from: "base" }, { signal: gone }).then(async (chunks) => {
        for await (const _ of chunks) gone.throwIfAborted();
      });
      await asked.catch(() => undefined);
    }
    await expect.poll(() => squashd.client.collect({ dry_run: true })).toMatchObject({ images: [], files: [] });
    // those that were left may take a moment to end
    const added = async (): Promise<number> => (await sandbox.diff({ from: "base", limit: 1 })).totals.added;
    await expect.poll(() => added().catch(() => 0)).toBeGreaterThan(3000);
  });

  it("shows hostile names as what they are", async () => {
    const sandbox = await squashd.client.create({ id: "e" });
    await sandbox.snapshot({ label: "old" });
    const script = `mkdir /w; cd /w; : >"$(printf 'new\\nline')"; : >..a; : >...; echo text >"$(printf 'b\\377d')"; ln -s /proc/self/root/etc/shadow s`;
    await print(sandbox, script);
    const { added } = await sandbox.diff();
    expect(added.map(({ path }) => path)).toEqual(["/w", "/w/...", "/w/..a", "/w/b\ufffdd", "/w/new\nline", "/w/s"]);
    const bytes = Buffer.from(added.find(({ path_base64 }) => path_base64 !== undefined)?.path_base64 ?? "", "base64");
    expect(bytes).toEqual(Buffer.from("/w/b\xffd", "latin1"));
    expect(await sandbox.diffFile(bytes)).toMatchObject({ kind: "added", binary: false });
    expect((await sandbox.diffFile(bytes)).diff).toContain("+text");
  });

  it("is the one that a walk through both states finds", async () => {
    const seed = Number(process.env["DIFF_SEED"] ?? Date.now() % 1_000_000);
    const random = randomNumbers(seed);
    const sandbox = await squashd.client.create({ id: "f", layers: ["000-base-test", "100-extra"] });
    let old = await state(sandbox);
    for (let round = 0; round < 5; round++) {
      await sandbox.snapshot({ label: `r${round}` });
      // what was taken becomes layers of its own, so that whiteouts and opaque directories lie on several of them
      if (random(2) === 0) await sandbox.restore(`r${round}`);
      const actions = Array.from({ length: 25 }, () => randomAction(random));
      await sandbox.exec(`mkdir -p /w; cd /w; ${actions.join("; ")}; true`);
      const now = await state(sandbox);
      expect(short(await sandbox.diff()).toSorted(), `seed ${seed}, round ${round}`).toEqual(expected(old, now));
      expect(short(await sandbox.diff({ from: "live", to: `r${round}` })).toSorted(), `seed ${seed}`).toEqual(
        expected(now, old),
      );
      old = now;
    }
  });
});

type State = ReadonlyMap<string, { readonly content: string; readonly facts: string }>;

/** Every file as programs in the sandbox see it, through the kernel's own overlay. */
async function state(sandbox: Sandbox): Promise<State> {
  const where = "/w /opt /var";
  const text = await print(
    sandbox,
    `mkdir -p /w /var; find ${where} | while read -r p; do
      c=; [ -L "$p" ] && c=$(readlink "$p"); [ ! -L "$p" ] && [ -f "$p" ] && c=$(md5sum <"$p")
      t=; { [ -d "$p" ] && [ ! -L "$p" ]; } || t=$(stat -c %y "$p")
      echo "$p|$(stat -c %F "$p" | sed 's/regular empty file/regular file/') $c|$(stat -c '%a %u %g' "$p") $t"; done`,
  );
  const rows = text
    .trimEnd()
    .split("\n")
    .map((row) => row.trimEnd().split("|"));
  return new Map(rows.map(([path = "", content = "", facts = ""]) => [path, { content, facts }]));
}

function expected(old: State, now: State): string[] {
  const found: string[] = [];
  for (const [path, { content, facts }] of now) {
    const before = old.get(path);
    if (before === undefined) found.push(`A${path}`);
    else if (before.content !== content) found.push(`M${path}`);
    else if (before.facts !== facts) found.push(`m${path}`);
  }
  for (const path of old.keys()) if (!now.has(path)) found.push(`D${path}`);
  return found.toSorted();
}

function randomAction(random: (below: number) => number): string {
  const path = (): string =>
    [
      ["/w", "/opt/extra", "/var", "/w/a"][random(4)],
      "abc"[random(3)],
      ...(random(2) === 0 ? ["abc"[random(3)]] : []),
    ].join("/");
  const [one, two] = [path(), path()];
  const choices = [
    `mkdir -p ${one}`,
    `echo ${random(3)} >${one}`,
    `rm -rf ${one}`,
    `rm -rf ${one}; mkdir -p ${one}; echo ${random(9)} >${one}/${"abc"[random(3)]}`,
    `ln -sf target${random(2)} ${one}`,
    `chmod 7${random(8)}0 ${one}`,
    `mv ${one} ${two}`,
    `touch -h -d @${1_000_000_000 + random(3)} ${one}`,
    `chown -h ${random(3)} ${one}`,
  ];
  return `{ ${choices[random(choices.length)]}; } 2>/dev/null`;
}

async function temporaryFolder(): Promise<AsyncDisposable & { readonly path: string }> {
  const path = await mkdtemp(join(tmpdir(), "sq-diff-"));
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
}

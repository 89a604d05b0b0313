import { execFileSync } from "node:child_process";
import {
  chmodSync,
  chownSync,
  closeSync,
  constants,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { beforeEach, describe, expect, it } from "vitest";
import { lacks } from "../../../test/support/needs.js";
import { useKernel } from "./test-kernel.js";

const mebibyte = 1_048_576;
const tree = ["a", "b", "a/x", "a/y", "b/x", "a/x/1", "a/x/2", "b/x/1", "c"] as const;

type Step =
  | { readonly do: "write" | "remove" | "directory" | "link" | "pipe"; readonly path: string; readonly text: string }
  | { readonly do: "move" | "hard"; readonly path: string; readonly to: string };

const path = fc.constantFrom(...tree);
const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({
    do: fc.constantFrom("write" as const, "remove" as const, "directory" as const, "link" as const, "pipe" as const),
    path,
    text: fc.string({ maxLength: 9 }),
  }),
  fc.record({ do: fc.constantFrom("move" as const, "hard" as const), path, to: path }),
);

/** Writes a file; a pipe, which has no reader, refuses at once. */
function writeNow(target: string, text: string): void {
  const file = openSync(target, constants.O_WRONLY | constants.O_CREAT | constants.O_NONBLOCK);
  writeSync(file, text);
  closeSync(file);
}

/** Does what can be done; what cannot is passed over, as a program would. */
function doStep(root: string, one: Step): void {
  const target = join(root, one.path);
  try {
    switch (one.do) {
      case "write":
        return writeNow(target, one.text);
      case "remove":
        return rmSync(target, { recursive: true });
      case "directory":
        mkdirSync(target);
        return chmodSync(target, 0o700 + one.text.length);
      case "link":
        return symlinkSync(`to-${one.text.length}`, target);
      case "pipe":
        execFileSync("mkfifo", [target], { stdio: "ignore" });
        return chmodSync(target, 0o600 + one.text.length);
      case "move":
        return renameSync(target, join(root, one.to));
      case "hard":
        return linkSync(target, join(root, one.to));
    }
  } catch {
    return; // refused
  }
}

function sh(command: string): string {
  return execFileSync("sh", ["-ec", command], { encoding: "utf8" });
}

/** Names, kinds, modes, owners, links, sizes, times, targets, contents and attributes below a directory. */
function survey(root: string): string {
  return sh(`cd '${root}'; find . \\( -type d -printf '%p d %m %U %G %T@\\n' -o -printf '%p %y %m %U %G %n %s %T@ %l\\n' \\) | sort
    find . -type f -exec sha1sum {} + | sort -k 2; getfattr -R -P -h -d -m '^user' . 2>/dev/null | sort`);
}

describe.skipIf(lacks("root"))("a capture", () => {
  const machine = useKernel();
  const upper = join(machine.home, "upper");
  const data = join(upper, "data");
  const image = "captured.erofs";

  beforeEach(() => {
    rmSync(join(machine.dataDir, image), { force: true });
    mkdirSync(upper, { recursive: true });
  });

  /** Runs with an upper of cell 0, and then with its capture as a layer. */
  async function captured(fill: () => void, look: (layer: string) => void): Promise<number> {
    const { kernel } = machine;
    await kernel.mountUpper({ path: upper, image: null, sizeBytes: 64 * mebibyte, index: 0 });
    try {
      fill();
      const size = await kernel.capture(image, [{ kind: "upper", path: upper, index: 0 }]);
      expect(statSync(join(machine.dataDir, image)).size).toBe(size);
      await kernel.mountLayer("captured", image, "erofs");
      look(`/proc/${await machine.hostPid()}/root/l/captured`);
      return size;
    } finally {
      await kernel.unmountLayer("captured");
      await kernel.unmountUpper(upper);
    }
  }

  it("keeps everything of every kind of file, with owners as the cell knows them", async () => {
    const own = (name: string, uid: number, gid: number): string =>
      sh(`chown -h ${machine.uidBase + uid}:${machine.uidBase + gid} '${join(data, name)}'`);
    let wanted = "";
    await captured(
      () => {
        mkdirSync(join(data, "dir/below"), { recursive: true });
        writeFileSync(join(data, "file"), "text");
        linkSync(join(data, "file"), join(data, "dir/below/same"));
        symlinkSync("x".repeat(4000), join(data, "long"));
        writeFileSync(join(data, "-"), "");
        writeFileSync(join(data, "big"), Buffer.alloc(1_000_001, "content "));
        // tmpfs has attributes of users since Linux 6.6
        sh(`cd '${data}'; mkfifo pipe; mknod gone c 0 0; chmod 4750 file; setfattr -n trusted.overlay.opaque -v y dir
          if setfattr -n user.one -v 1 file 2>/dev/null; then
            setfattr -n user.two -v 22 file; setfattr -n user.long -v "$(head -c 5000 /dev/zero | tr '\\0' x)" dir
          fi
          setfattr -n trusted.overlay.origin -v 0x00 dir; for i in $(seq 300); do : >dir/below/a-name-that-is-rather-long-$i; done`);
        utimesSync(join(data, "dir/below"), 1, 1_234_567_890.123);
        for (const [at, name] of ["dir", "dir/below", "file", "long", "-", "big", "pipe", "."].entries())
          own(name, at, 65_535 - at);
        // what a cell's user cannot have made, such as overlayfs's own, is root's
        wanted = survey(data).replaceAll(
          / (134\d{7}) (134\d{7}) /g,
          (_, uid, gid) => ` ${shifted(uid)} ${shifted(gid)} `,
        );
      },
      (layer) => {
        expect(survey(layer).replaceAll(/^(\S+ d \d+ 0 0) .*$/gm, "$1")).toBe(
          wanted.replaceAll(/^(\S+ d \d+ 0 0) .*$/gm, "$1"),
        );
        expect(lstatSync(join(layer, "gone")).rdev).toBe(0);
        expect(sh(`getfattr -d -m - '${layer}/dir' | grep trusted`)).toBe('trusted.overlay.opaque="y"\n');
      },
    );
  });

  const shifted = (id: unknown): number => Number(id) - machine.uidBase;

  it("keeps holes as holes, in files however large", async () => {
    const size = await captured(
      () => {
        truncateSync(fileOf("empty"), 1024 ** 4);
        truncateSync(fileOf("data"), 64 * mebibyte);
        const file = openSync(join(data, "data"), "r+");
        for (const at of [5_000, 40_000_000, 64 * mebibyte - 3]) writeSync(file, "abc", at);
        closeSync(file);
      },
      (layer) => {
        expect(statSync(join(layer, "empty")).size).toBe(1024 ** 4);
        const file = openSync(join(layer, "data"), "r");
        const whole = sh(`sha1sum <'${join(layer, "data")}'; sha1sum <'${join(data, "data")}'`).split("\n");
        closeSync(file);
        expect(whole[0]).toBe(whole[1]);
      },
    );
    expect(size).toBeLessThan(8 * mebibyte);
  });

  function fileOf(name: string): string {
    writeFileSync(join(data, name), "");
    return join(data, name);
  }

  it("gives the same bytes for the same files", async () => {
    const fill = (): void => {
      for (const name of ["z", "a", "m"]) writeFileSync(join(data, name), name.repeat(5000));
      sh(`find '${data}' -exec touch -d @5 {} +`);
    };
    await captured(fill, () => undefined);
    const first = readFileSync(join(machine.dataDir, image));
    rmSync(join(machine.dataDir, image));
    await captured(fill, () => undefined);
    expect(first.equals(readFileSync(join(machine.dataDir, image)))).toBe(true);
  });

  it("merges a stack as overlayfs does, whatever was done in it", async () => {
    const seed = Number(process.env["TEST_SEED"] ?? Date.now() % 2 ** 31);
    console.log(`seed ${seed} (set TEST_SEED to repeat)`);
    const steps = fc.array(step, { maxLength: 14 });
    const stack = fc.tuple(steps, steps, steps);
    const runs = Number(process.env["TEST_RUNS"] ?? 12);
    await fc.assert(fc.asyncProperty(stack, mergesLikeOverlay), { seed, numRuns: runs, endOnFailure: true });
  });

  async function mergesLikeOverlay([base, lower, top]: readonly [Step[], Step[], Step[]]): Promise<void> {
    const { kernel } = machine;
    const [home, uppers, seen] = [
      join(machine.home, "merge"),
      [0, 1].map((at) => join(machine.home, `up${at}`)),
      join(machine.home, "seen"),
    ];
    const image = join(machine.home, "merged");
    for (const directory of [home, seen, image, ...uppers]) mkdirSync(directory, { recursive: true });
    const overlay = (options: string): string => sh(`mount -t overlay overlay -o ${options} '${seen}'`);
    for (const one of base) doStep(home, one);
    // the owner of what was captured is a cell's root, whose number becomes 0
    sh(`chown -R -h 0:0 '${home}'`);
    try {
      for (const [at, upperPath] of uppers.entries()) {
        await kernel.mountUpper({ path: upperPath, image: null, sizeBytes: 16 * mebibyte, index: 0 });
        chownSync(join(upperPath, "data"), 0, 0);
        const below = [
          ...uppers
            .slice(0, at)
            .toReversed()
            .map((one) => join(one, "data")),
          home,
        ].join(":");
        overlay(
          `lowerdir=${below},upperdir=${upperPath}/data,workdir=${upperPath}/work,index=off,metacopy=off,redirect_dir=off`,
        );
        for (const one of at === 0 ? lower : top) doStep(seen, one);
        sh(`umount '${seen}'`);
      }
      await kernel.capture("bottom.erofs", [{ kind: "upper", path: uppers[0] ?? "", index: 0 }]);
      await kernel.mountLayer("bottom", "bottom.erofs", "erofs");
      await kernel.capture("merged.erofs", [
        { kind: "upper", path: uppers[1] ?? "", index: 0 },
        { kind: "layer", key: "bottom" },
      ]);
      // of mounted layers alone, as in the background, it is the same to the byte
      await kernel.capture("top.erofs", [{ kind: "upper", path: uppers[1] ?? "", index: 0 }]);
      await kernel.mountLayer("top", "top.erofs", "erofs");
      await kernel.capture("layers.erofs", [
        { kind: "layer", key: "top" },
        { kind: "layer", key: "bottom" },
      ]);
      const [whole, ofLayers] = ["merged", "layers"].map((name) =>
        readFileSync(join(machine.dataDir, `${name}.erofs`)),
      );
      expect(whole?.equals(ofLayers ?? Buffer.alloc(0))).toBe(true);
      overlay(
        `lowerdir=${uppers
          .toReversed()
          .map((one) => join(one, "data"))
          .join(":")}:${home}`,
      );
      const wanted = survey(seen);
      sh(`umount '${seen}'`);
      sh(`mount -t erofs -o loop,ro '${join(machine.dataDir, "merged.erofs")}' '${image}'`);
      overlay(`lowerdir=${image}:${home}`);
      const found = survey(seen);
      sh(`umount '${seen}' '${image}'`);
      expect(found).toBe(wanted);
    } finally {
      for (const key of ["top", "bottom"]) await kernel.unmountLayer(key);
      for (const one of uppers) await kernel.unmountUpper(one);
      for (const name of ["merged.erofs", "bottom.erofs", "top.erofs", "layers.erofs"])
        rmSync(join(machine.dataDir, name), { force: true });
      rmSync(home, { recursive: true });
    }
  }

  it("shows no marks of removed files where a file of a later layer covers what they were removed from", async () => {
    const [layers, seen] = [join(machine.home, "cover"), join(machine.home, "covered")];
    for (const name of ["top", "cover", "base/dir", "image"]) mkdirSync(join(layers, name), { recursive: true });
    mkdirSync(seen, { recursive: true });
    writeFileSync(join(layers, "cover/dir"), "a file");
    writeFileSync(join(layers, "base/dir/gone"), "");
    await captured(
      () => sh(`cd '${data}'; mkdir dir; mknod dir/gone c 0 0; echo x >dir/there; chown -R ${machine.uidBase} dir`),
      () => {
        sh(`mount -t erofs -o loop,ro '${join(machine.dataDir, image)}' '${layers}/image'`);
        sh(`cd '${layers}'; mount -t overlay overlay -o lowerdir=top:image:cover:base '${seen}'`);
        const names = sh(`ls '${seen}/dir'`);
        sh(`umount '${seen}' '${layers}/image'; rm -r '${layers}'`);
        expect(names).toBe("there\n");
      },
    );
  });

  it("follows no link and leaves the way to nowhere else", async () => {
    await captured(
      () => {
        symlinkSync("/etc/passwd", join(data, "absolute"));
        symlinkSync("../../../../../../etc", join(data, "etc"));
      },
      (layer) => {
        expect(lstatSync(join(layer, "absolute")).isSymbolicLink()).toBe(true);
        expect(lstatSync(join(layer, "etc")).isSymbolicLink()).toBe(true);
      },
    );
  });

  it("ends when somebody removes its image, and leaves nothing", async () => {
    const { kernel } = machine;
    await kernel.mountUpper({ path: upper, image: null, sizeBytes: 128 * mebibyte, index: 0 });
    try {
      writeFileSync(join(data, "big"), Buffer.alloc(96 * mebibyte, "x"));
      const removedMeanwhile = async (): Promise<string> => {
        const outcome = kernel.capture(image, [{ kind: "upper", path: upper, index: 0 }]).then(
          () => "done",
          (error: { details: { errno: string } }) => error.details.errno,
        );
        while (!existsSync(join(machine.dataDir, image))) await new Promise((again) => setImmediate(again));
        rmSync(join(machine.dataDir, image));
        return outcome;
      };
      const outcomes: string[] = [];
      // on a busy machine the image may be finished before this process has a turn
      while (outcomes.length < 5 && outcomes.at(-1) !== "ECANCELED") outcomes.push(await removedMeanwhile());
      expect(outcomes.at(-1)).toBe("ECANCELED");
      expect(existsSync(join(machine.dataDir, image))).toBe(false);
    } finally {
      await kernel.unmountUpper(upper);
    }
  });

  it("takes a layer exactly, alone, and never to more bytes than it may have", async () => {
    const { kernel } = machine;
    const tree = join(machine.home, "exact");
    const packed = join(machine.dataDir, "exact.erofs");
    mkdirSync(tree);
    sh(
      `cd '${tree}'; echo x >ids; chown 70000:80000 ids; setfattr -n trusted.other -v y ids; mknod null c 1 259; mknod gone c 0 0`,
    );
    sh(`cd '${tree}'; head -c ${16 * mebibyte} /dev/zero >bomb; mkfs.erofs -zlz4 '${packed}' . >/dev/null 2>&1`);
    expect(statSync(packed).size).toBeLessThan(2 * mebibyte);
    await kernel.mountLayer("packed", "exact.erofs", "erofs");
    try {
      const exact = [{ kind: "exact", key: "packed" }] as const;
      const tooLarge = kernel.capture(image, exact, 4 * mebibyte);
      await expect(tooLarge).rejects.toMatchObject({ details: { errno: "EFBIG" } });
      expect(statSync(join(machine.dataDir, image)).size).toBeLessThanOrEqual(4 * mebibyte);
      rmSync(join(machine.dataDir, image));
      await expect(kernel.capture(image, [...exact, ...exact])).rejects.toThrow(/understand/);
      await kernel.capture(image, exact, 32 * mebibyte);
      await kernel.mountLayer("captured", image, "erofs");
      const layer = `/proc/${await machine.hostPid()}/root/l/captured`;
      expect(sh(`cd '${layer}'; stat -c '%n %u:%g %t:%T' ids null gone`)).toBe(
        "ids 70000:80000 0:0\nnull 0:0 1:103\ngone 0:0 0:0\n",
      );
      expect(sh(`getfattr --only-values -n trusted.other '${layer}/ids'`)).toBe("y");
    } finally {
      await kernel.unmountLayer("captured");
      await kernel.unmountLayer("packed");
    }
  });

  it("refuses what is there already, names that lead elsewhere, and trees that are too deep", async () => {
    const { kernel } = machine;
    await kernel.mountUpper({ path: upper, image: null, sizeBytes: 4 * mebibyte, index: 0 });
    const roots = [{ kind: "upper", path: upper, index: 0 }] as const;
    writeFileSync(join(machine.dataDir, image), "mine");
    await expect(kernel.capture(image, roots)).rejects.toMatchObject({ details: { errno: "EEXIST" } });
    expect(readFileSync(join(machine.dataDir, image), "utf8")).toBe("mine");
    for (const name of ["/tmp/x", "../x", ""]) await expect(kernel.capture(name, roots)).rejects.toThrow(/understand/);
    await expect(kernel.capture("none", [{ kind: "layer", key: "none" }])).rejects.toMatchObject({ code: "kernel" });
    sh(`cd '${data}'; d=d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d; for i in $(seq 150); do mkdir -p $d; cd -P $d; done`);
    await expect(kernel.capture("deep", roots)).rejects.toThrow(/deeper|nest so deep/);
    await kernel.unmountUpper(upper);
    for (const name of ["none", "deep"]) rmSync(join(machine.dataDir, name), { force: true });
  });
});

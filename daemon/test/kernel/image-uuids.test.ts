import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { lacks } from "../../../test/support/needs.js";
import { useKernel } from "./test-kernel.js";

const mebibyte = 1_048_576;
/** Source: Linux, fs/erofs/erofs_fs.h */
const uuidAt = 1024 + 48;

describe.skipIf(lacks("root"))("an image that is captured", () => {
  const machine = useKernel();
  const upper = join(machine.home, "upper");

  /** The UUID of what a command makes, with the same times whatever it does. */
  async function uuidOf(command: string): Promise<string> {
    const { kernel } = machine;
    mkdirSync(upper, { recursive: true });
    const path = join(machine.dataDir, "image.erofs");
    rmSync(path, { force: true });
    await kernel.mountUpper({ path: upper, image: null, sizeBytes: 64 * mebibyte, index: 0 });
    try {
      const script = `cd '${upper}/data'; ${command}; find . -exec touch -h -d @5 {} +`;
      execFileSync("sh", ["-ec", script]);
      await kernel.capture("image.erofs", [{ kind: "upper", path: upper, index: 0 }]);
    } finally {
      await kernel.unmountUpper(upper);
    }
    return readFileSync(path).toString("hex", uuidAt, uuidAt + 16);
  }

  it("has a UUID of its own, made of all that is in it", async () => {
    const long = "head -c 50000 /dev/zero >a; echo";
    const ways = [
      ...["true", "echo x >a", "echo y >a", "echo x >b", "echo x >a; chmod 600 a", "echo x >a; ln -s there b"],
      ...["echo x >a; truncate -s 1M a", "echo x >a; truncate -s 2M a", "echo x >a; ln a b", "echo x >a; cp a b"],
      ...[
        `${long} x >>a`,
        `${long} y >>a`,
        `${long} x | dd of=a conv=notrunc status=none`,
        `${long} x | dd of=a conv=notrunc status=none seek=9`,
      ],
    ];
    const uuids = new Map<string, string>();
    for (const way of ways) uuids.set(way, await uuidOf(way));
    expect(new Set(uuids.values()).size).toBe(ways.length);
    for (const uuid of uuids.values()) expect(uuid).toMatch(/^.{12}8.{3}[89ab].{15}$/);
    for (const way of ways.slice(1, 3)) expect(await uuidOf(way)).toBe(uuids.get(way));
  });
});

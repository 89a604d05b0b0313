import { describe, expect, it } from "vitest";
import type { RunTool } from "./run-tool.js";
import { bytesIn, deviceIn, surveySquashfs } from "./squashfs-survey.js";

describe("the devices of an image", () => {
  it.each([
    ["crw-rw-rw- 0/0                   1,  3 2024-02-03 04:05 ./dev/null", "dev/null"],
    ["brw-rw---- 0/6                   8, 16 2024-02-03 04:05 ./dev/sdb", "dev/sdb"],
    ["c--------- 0/0                   0,  0 2024-02-03 04:05 ./etc/gone", null],
    ["b--------- 0/0                   0,  0 2024-02-03 04:05 ./etc/odd", "etc/odd"],
    ["-rw-r--r-- 0/0                     7 2024-02-03 04:05 ./etc/crw", null],
    ["drwxr-xr-x 0/0                    36 2024-02-03 04:05 .", null],
    ["", null],
  ])("are read from lines like %j", (line, path) => {
    expect(deviceIn(line)).toBe(path);
  });

  it.each([
    [["crw-rw-rw- 0/0 1, 3 2024-02-03 04:05 ./dev/a b"], /unusual characters/],
    [["crw-rw-rw- 0/0 1, 3 2024-02-03 04:05 ./-x"], /unusual characters/],
    [Array.from({ length: 501 }, (_, at) => `crw-rw-rw- 0/0 1, 3 2024-02-03 04:05 ./dev/${at}`), /over 500 devices/],
    [["x".repeat(100_000)], /too long/],
    [
      Array.from({ length: 1_001 }, (_, at) => `drwxr-xr-x 0/0 3 2024-02-03 04:05 ./${at}`),
      /more than 1000 files or 1 MiB/,
    ],
    [
      ["700000", "400000"].map((size) => `-rw-r--r-- 0/0 ${size} 2024-02-03 04:05 ./a`),
      /more than 1000 files or 1 MiB/,
    ],
  ])("are refused where there is something odd: %.60s", async (lines, message) => {
    const run: RunTool = (_, { stdout }) =>
      new Promise((resolve, reject) => {
        stdout?.on("error", reject);
        stdout?.write(lines.join("\n"));
        stdout?.on("finish", () => resolve(""));
        stdout?.end("\n");
      });
    const limits = { deadlineMs: 1_000 };
    await expect(
      surveySquashfs(run, { image: "i", name: "a", bounds: { files: 1_000, bytes: 1_048_576 } }, limits),
    ).rejects.toThrow(message);
  });
});

it.each([
  ["-rw-r--r-- 0/0                     7 2024-02-03 04:05 ./etc/crw", 7],
  ["-rwsr-xr-x 1000/1000  9223372036854775807 2024-02-03 04:05 ./large", 2 ** 63],
  ["lrwxrwxrwx 0/0                     3 2024-02-03 04:05 ./link -> abc", 0],
  ["crw-rw-rw- 0/0                   1,  3 2024-02-03 04:05 ./dev/null", 0],
  ["a name with a line in it", 0],
])("the size of a file is read from lines like %j", (line, bytes) => {
  expect(bytesIn(line)).toBe(bytes);
});

import { defineConfig } from "vitest/config";
import { patience } from "./test/support/patience.js";

/** A process for each file takes longer than many a file's tests do. */
const isolate = false;

const privileged = {
  isolate,
  pool: "forks",
  fileParallelism: false,
  // two halves of them run beside one another and a virtual machine
  testTimeout: 120_000 * patience,
  hookTimeout: 120_000 * patience,
  expect: { poll: { timeout: 10_000 * patience } },
} as const;

export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: "unit",
          include: ["{sdk,daemon,cli}/src/**/*.test.ts", "test/model/**/*.test.ts"],
          isolate,
          // properties are tried beside the virtual machine, which takes most of a processor
          testTimeout: 30_000,
        },
      },
      { test: { name: "kernel", include: ["daemon/test/kernel/**/*.test.ts"], ...privileged } },
      { test: { name: "system", include: ["test/system/**/*.test.ts"], ...privileged } },
      { test: { name: "vm", include: ["test/vm/**/*.test.ts"], ...privileged } },
    ],
  },
});

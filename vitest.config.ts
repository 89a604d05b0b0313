import { defineConfig } from "vitest/config";

const serial = { pool: "forks", fileParallelism: false } as const;

export default defineConfig({
  test: {
    projects: [
      { test: { name: "unit", include: ["{sdk,daemon,cli}/src/**/*.test.ts"] } },
      {
        test: {
          name: "kernel",
          include: ["daemon/test/kernel/**/*.test.ts"],
          ...serial,
          testTimeout: 60_000,
          hookTimeout: 60_000,
        },
      },
      {
        test: {
          name: "system",
          include: ["test/system/**/*.test.ts"],
          ...serial,
          testTimeout: 60_000,
          hookTimeout: 60_000,
        },
      },
      {
        test: {
          name: "vm",
          include: ["test/vm/**/*.test.ts"],
          ...serial,
          testTimeout: 60_000,
          hookTimeout: 60_000,
        },
      },
    ],
  },
});

import { readFileSync } from "node:fs";
import { errorStatus } from "@squash/sdk/protocol";
import { describe, expect, it } from "vitest";
import { settings } from "./config.js";

const docs = new URL("../../docs/", import.meta.url);
const read = (name: string): string => readFileSync(new URL(name, docs), "utf8");

describe("the documentation", () => {
  it.each(Object.values(settings).map(({ env, fallback }) => ({ env, fallback })))("has $env", ({ env, fallback }) => {
    const row = new RegExp(`^\\| \`${env}\`.*$`, "m").exec(read("operations.md"))?.[0];
    expect(row).toBeDefined();
    if (fallback !== "" && env !== "SQUASH_HOST_BIN") expect(row).toContain(`\`${fallback}\``);
  });

  it("names no setting that does not exist", () => {
    const known = new Set(["SQUASH_API"]);
    for (const setting of Object.values(settings)) {
      known.add(setting.env);
      if ("aliases" in setting) for (const alias of setting.aliases) known.add(alias);
    }
    const named = read("operations.md").match(/SQUASH_[A-Z_]+/g) ?? [];
    expect(named.filter((name) => !known.has(name))).toEqual([]);
  });

  it.each(Object.entries(errorStatus))("has the error code %s with its status %i", (code, status) => {
    expect(read("api.md")).toMatch(new RegExp(`^\\| \`${code}\` \\| ${status} \\|`, "m"));
  });
});

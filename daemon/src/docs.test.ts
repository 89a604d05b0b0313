import { readFileSync } from "node:fs";
import { errorStatus } from "@squash/sdk/protocol";
import { describe, expect, it } from "vitest";
import { settings } from "./config.js";
import { parsePolicy } from "./core/egress/policy.js";
import { specialRanges } from "./core/egress/special-ranges.js";

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
    const named = read("operations.md").match(/SQUASH_[A-Z0-9_]+/g) ?? [];
    expect(named.filter((name) => !known.has(name))).toEqual([]);
  });

  it.each(Object.entries(errorStatus))("has the error code %s with its status %i", (code, status) => {
    expect(read("api.md")).toMatch(new RegExp(`^\\| \`${code}\` \\| ${status} \\|`, "m"));
  });

  it.each(Object.values(specialRanges).flat())("has the special range %s", (range) => {
    expect(read("egress.md")).toContain(`\`${range}\``);
  });

  it.each(
    [...read("egress.md").matchAll(/^\|(.*)\|(.*)\| `(.*):(\d+)` \| (allowed|denied)/gm)].map((row) => row.slice(1)),
  )(
    "is right about which entry wins: allow %s, deny %s, %s:%s is %s",
    (allow = "", deny = "", host = "", port = "", answer = "") => {
      const entries = (cell: string): string[] => [...cell.matchAll(/`(.*?)`/g)].map(([, entry = ""]) => entry);
      const policy = parsePolicy({ allow: entries(allow), deny: entries(deny) }, { subnets: [] });
      const ask = /^[\d.]+$/.test(host) ? policy.connectByAddress.bind(policy) : policy.connectByName.bind(policy);
      expect(ask(host, Number(port), "tcp").allowed).toBe(answer === "allowed");
    },
  );
});

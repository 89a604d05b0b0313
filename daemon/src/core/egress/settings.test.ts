import { describe, expect, it } from "vitest";
import { networkSettings, networkWish } from "./settings.js";

const unlimited = { downKbit: null, upKbit: null, connectionsPerS: null };

describe("networkSettings()", () => {
  it.each([[{}], [{ allow_net: null }], [{ allow_net: [] }], [{ net_limits: {} }]])(
    "take %j for everything public, without limits",
    (wish) => {
      expect(networkSettings(wish)).toEqual({ policy: { allow: null, deny: [] }, limits: unlimited });
    },
  );

  it("keep lists and limits", () => {
    const limits = { down_kbit: 64, up_kbit: 65, connections_per_s: 66 };
    expect(networkSettings({ allow_net: ["a.example"], deny_net: ["b.example"], net_limits: limits })).toEqual({
      policy: { allow: ["a.example"], deny: ["b.example"] },
      limits: { downKbit: 64, upKbit: 65, connectionsPerS: 66 },
    });
    expect(networkSettings({ net_limits: { up_kbit: 65 } }).limits).toEqual({ ...unlimited, upKbit: 65 });
  });
});

describe("networkWish()", () => {
  it.each([
    { allow_net: null, deny_net: [], net_limits: {} },
    { allow_net: ["none"], deny_net: ["b.example"], net_limits: { down_kbit: 64 } },
    { allow_net: ["a.example"], deny_net: [], net_limits: { up_kbit: 65, connections_per_s: 66 } },
  ])("is the undo of it: %j", (wish) => expect(networkWish(networkSettings(wish))).toEqual(wish));
});

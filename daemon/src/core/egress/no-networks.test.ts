import { describe, expect, it } from "vitest";
import { NoNetworks } from "./no-networks.js";
import { networkSettings } from "./settings.js";

const networks = new NoNetworks();
const refused = expect.objectContaining({ code: "invalid_request", details: { field: "allow_net" } });

describe("NoNetworks", () => {
  it.each([[{}], [{ allow_net: [] }], [{ allow_net: ["none"] }]])("accepts %j", async (wish) => {
    networks.check(networkSettings(wish));
    await networks.attach();
    await networks.change(0, networkSettings(wish));
    await networks.detach();
  });

  it.each([
    { allow_net: ["example.org"] },
    { allow_net: ["none", "example.org"] },
    { deny_net: ["example.org"] },
    { net_limits: { down_kbit: 64 } },
    { net_limits: { connections_per_s: 1 } },
  ])("refuses what it could not keep: %j", (wish) => {
    expect(() => networks.check(networkSettings(wish))).toThrow(refused);
    expect(() => networks.change(0, networkSettings(wish))).toThrow(refused);
  });

  it("knows no address and no figures", async () => {
    expect(networks.addressesOf()).toEqual({ address: null, address6: null });
    expect(await networks.usage()).toBeNull();
  });
});

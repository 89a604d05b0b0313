import { beforeEach, describe, expect, it } from "vitest";
import type { Secret } from "../secrets/secret.js";
import { broken } from "./testing/fake-firewall.js";
import { address, elementsOf, NetworkBed, settings } from "./testing/network-bed.js";

let bed: NetworkBed;

beforeEach(async () => {
  bed = new NetworkBed();
  await known("A", "B");
  bed.steps.taken.length = 0;
});

/** Those are all secrets from now on. */
function known(...names: string[]): Promise<void> {
  const secrets = names.map((name) => ({ name }) as Secret);
  return bed.networks.setSecrets({ secrets, authorities: [] });
}

const all = { secrets: null, ca: null };
const some = (...secrets: string[]): { secrets: string[]; ca: string } => ({ secrets, ca: "f00d" });
const granted = (): readonly string[] | undefined => bed.plane.clients.get(address)?.secrets;
const isProxied = (): boolean => bed.firewall.sets.state().some((element) => element.startsWith("proxied"));

describe("a sandbox with secrets", () => {
  it("goes through the proxy, whose name the plane knows it by with what it has, also where its policy is open", async () => {
    await bed.networks.attach(5, "box", settings(""), some("B", "A", "B"));
    expect(bed.steps.taken).toEqual(["set 10.200.0.7 box open with A,B", "update -0 +6"]);
    expect(bed.plane.clients.get(address)).toMatchObject({ secrets: ["A", "B"], ca: "f00d" });
    const proxied = elementsOf("example.org").find((element) => element.startsWith("proxied"))!;
    expect(bed.firewall.sets.state()).toEqual(
      [
        ...elementsOf("").map((element) => element.replace(/^(mode .*) 11$/, "$1 15")),
        proxied,
        proxied.replace("proxied", "explicit"),
      ].toSorted(),
    );
  });

  it("has all that there are where none are named, and none of those that there are not", async () => {
    await bed.networks.attach(5, "box", settings(""), all);
    expect(granted()).toEqual(["A", "B"]);
    await bed.networks.grant(5, some("B", "GONE"));
    expect(granted()).toEqual(["B"]);
    expect(bed.networks.granted(all)).toEqual(["A", "B"]);
    expect(() => bed.networks.checkSecrets(["A", "GONE"])).toThrow(/Cannot grant secret "GONE"/);
    bed.networks.checkSecrets(null);
  });

  it("without any is led past the proxy", async () => {
    await bed.networks.attach(5, "box", settings(""), some());
    expect([isProxied(), bed.firewall.sets.state()]).toEqual([false, elementsOf("")]);
  });
});

describe("grant()", () => {
  it("tells the plane before the firewall lets go, and changes back", async () => {
    await bed.networks.attach(5, "box", settings(""), all);
    bed.steps.taken.length = 0;
    await bed.networks.grant(5, some());
    expect(bed.steps.taken).toEqual(["set 10.200.0.7 box open", "update -3 +1"]);
    expect(bed.firewall.sets.state()).toEqual(elementsOf(""));
    await bed.networks.grant(5, some("A"));
    expect([granted(), isProxied()]).toEqual([["A"], true]);
  });

  it("stays through a change of the policy", async () => {
    await bed.networks.attach(5, "box", settings(""), some("A"));
    await bed.networks.change(5, settings("example.org"));
    expect(granted()).toEqual(["A"]);
    await bed.networks.change(5, settings(""));
    expect([granted(), isProxied()]).toEqual([["A"], true]);
  });

  it.each(["set", "update"])("that fails at %s changes nothing", async (step) => {
    await bed.networks.attach(5, "box", settings(""), some("A"));
    const before = bed.firewall.sets.state();
    bed.steps.failing.set(step, broken);
    await expect(bed.networks.grant(5, some())).rejects.toBe(broken);
    expect([granted(), bed.firewall.sets.state()]).toEqual([["A"], before]);
  });
});

describe("setSecrets()", () => {
  it("tells values first, then each sandbox whose secrets are others", async () => {
    await bed.networks.attach(5, "all", settings(""), all);
    await bed.networks.attach(6, "some", settings(""), some("A"));
    bed.steps.taken.length = 0;
    await known("A", "B", "C");
    expect(bed.steps.taken).toEqual(["secrets A,B,C", "set 10.200.0.7 all open with A,B,C"]);
    await known("B", "C");
    expect([granted(), bed.plane.clients.get("10.200.0.8")?.secrets]).toEqual([["B", "C"], []]);
    await known();
    expect(bed.firewall.sets.state().some((element) => element.startsWith("proxied"))).toBe(false);
    // what was granted by name is so again when there is one of that name
    await known("A");
    expect([granted(), bed.plane.clients.get("10.200.0.8")?.secrets]).toEqual([["A"], ["A"]]);
  });

  it.each(["secrets", "set"])("goes on with the others where it fails at %s, and says so", async (step) => {
    await bed.networks.attach(5, "box", settings(""), all);
    await bed.networks.attach(6, "other", settings(""), all);
    bed.steps.failing.set(step, broken);
    await expect(known("A")).rejects.toBe(broken);
    expect(bed.plane.clients.get("10.200.0.8")?.secrets).toEqual(["A"]);
  });
});

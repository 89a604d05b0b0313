import { beforeEach, describe, expect, it } from "vitest";
import { FakeMachine } from "../testing/fake-machine.js";
import { success } from "../testing/success.js";
import { fakeSquashd, type FakeSquashd } from "../testing/fake-squashd.js";
import type { Command } from "../ports.js";
import { SecretInjection } from "./injection.js";
import type { TrustImages, TrustWish } from "./trust.js";

const never = new AbortController().signal;
const base = "000-base@1.squashfs";
const extra = "100-extra@1.squashfs";

describe("SecretInjection", () => {
  let machine: FakeMachine;
  let squashd: FakeSquashd;
  let wishes: TrustWish[];
  let secrets: Record<string, string>;
  let fingerprint: string;
  let failing: boolean;

  /** an image for each authority and text */
  const images: TrustImages = {
    use: async (wish, use) => {
      wishes.push(wish);
      if (failing) throw new Error("no image");
      const name = `trust-${wish.authority.fingerprint}`;
      const layer = { name, image: `trust/${name}.erofs`, format: "erofs", identity: "0" } as const;
      return use({ layer, root: { ca: wish.authority.fingerprint, bundle: "/bundle" } });
    },
  };

  function start(): FakeSquashd {
    return fakeSquashd(machine, {
      injection: (layers) =>
        new SecretInjection({
          granted: (names) =>
            Object.entries(secrets).flatMap(([name, placeholder]) =>
              names === null || names.includes(name) ? [{ name, placeholder }] : [],
            ),
          authority: () => ({ fingerprint, certificatePem: "pem" }),
          gateway: "10.0.0.1",
          images,
          layers,
        }),
    });
  }

  beforeEach(() => {
    machine = new FakeMachine();
    machine.modules.add("100-extra");
    wishes = [];
    secrets = { TOKEN: "placeholder" };
    fingerprint = "one";
    failing = false;
    squashd = start();
  });

  const rootOf = (id: string): readonly string[] | undefined => {
    const index = machine.records.get(id)?.cell.index ?? -1;
    return machine.cells.get(index)?.root?.layers;
  };
  const trustOf = (ca: string): string => `trust-${ca}@0.erofs`;

  it("lays an image between modules and snapshots into every root: of a create, a change, a restore and a fork", async () => {
    await squashd.sandboxes.create({ id: "a" }, never);
    expect(rootOf("a")).toEqual([trustOf("one"), base]);
    await squashd.stacks.activate("a", { module: "100-extra" }, never);
    expect(rootOf("a")).toEqual([trustOf("one"), extra, base]);
    await squashd.snapshots.take("a", { label: "first" });
    await squashd.stacks.deactivate("a", { module: "100-extra" }, never);
    expect(rootOf("a")).toEqual([trustOf("one"), base]);
    await squashd.stacks.restore("a", { label: "first" }, never);
    expect(rootOf("a")).toEqual([expect.stringMatching(/^snapshot-/), trustOf("one"), extra, base]);
    const [fork] = await squashd.forks.fork("a", { target_id: "b", from: "first" }, never);
    expect(rootOf(fork?.id ?? "")).toEqual([expect.stringMatching(/^snapshot-/), trustOf("one"), extra, base]);
    expect(machine.records.get("b")).toMatchObject({ trust: { ca: "one", bundle: "/bundle" } });
    // and in no image
    const captured = [...machine.captured.values()].flat().map((root) => ("path" in root ? root.path : root.key));
    expect(captured.filter((name) => name.startsWith("trust"))).toEqual([]);
  });

  it("gives a sandbox that is rebuilt the present authority and text, and tells the proxy", async () => {
    await squashd.sandboxes.create({ id: "a" }, never);
    fingerprint = "two";
    const { index } = machine.records.get("a")?.cell ?? { index: -1 };
    expect(squashd.networks.grants.get(index)).toEqual({ secrets: null, ca: "one" });
    machine.crashCell(index);
    await expect
      .poll(() => squashd.sandboxes.find("a").state === "ready" && rootOf("a"))
      .toEqual([trustOf("two"), base]);
    expect(squashd.networks.grants.get(index)).toEqual({ secrets: null, ca: "two" });
    expect([...machine.layers]).toEqual([base, trustOf("two")]);
  });

  it("tells the proxy also where the cell stays and only the root is another one", async () => {
    await squashd.sandboxes.create({ id: "a" }, never);
    fingerprint = "two";
    await squashd.stacks.activate("a", { module: "100-extra" }, never);
    const { index } = machine.records.get("a")?.cell ?? { index: -1 };
    expect(machine.calls.filter((call) => call === "makeCell")).toHaveLength(1);
    expect(squashd.networks.grants.get(index)).toEqual({ secrets: null, ca: "two" });
    expect(machine.records.get("a")).toMatchObject({ trust: { ca: "two" } });
  });

  it("goes back to the old authority with the old root when a change fails", async () => {
    await squashd.sandboxes.create({ id: "a" }, never);
    fingerprint = "two";
    machine.failing.set("grantSecrets", 1);
    await expect(squashd.stacks.activate("a", { module: "100-extra" }, never)).rejects.toThrow(/at stage "trust"/);
    expect(rootOf("a")).toEqual([trustOf("one"), base]);
    expect(machine.records.get("a")).toMatchObject({ trust: { ca: "one" }, layers: ["000-base"] });
    const { index } = machine.records.get("a")?.cell ?? { index: -1 };
    expect(squashd.networks.grants.get(index)).toEqual({ secrets: null, ca: "one" });
    expect([...machine.layers].toSorted()).toEqual([base, trustOf("one")]);
  });

  it("counts the image for sandboxes that the next squashd takes over, and gives it back when they go", async () => {
    await squashd.sandboxes.create({ id: "a" }, never);
    const later = start();
    await later.recovery.run();
    expect(machine.layers).toContain(trustOf("one"));
    expect(later.networks.grants.get(0)).toEqual({ secrets: null, ca: "one" });
    await later.sandboxes.destroy("a");
    expect(machine.state()).toEqual([]);
  });

  it("leaves nothing behind when an image cannot be had or mounted", async () => {
    failing = true;
    await expect(squashd.sandboxes.create({ id: "a" }, never)).rejects.toThrow(/at stage "layers": no image/);
    expect(machine.state()).toEqual([]);
    failing = false;
    machine.afterStep = (step) => {
      if (step === "mountLayer") machine.failing.set("mountLayer", 1);
    };
    await expect(squashd.sandboxes.create({ id: "a" }, never)).rejects.toThrow(/at stage "layers"/);
    expect(machine.state()).toEqual([]);
  });

  it("costs nothing where no secret is granted", async () => {
    secrets = {};
    await squashd.sandboxes.create({ id: "a" }, never);
    expect([rootOf("a"), wishes, machine.records.get("a")?.trust]).toEqual([[base], [], undefined]);
    expect(squashd.networks.grants.get(0)).toEqual({ secrets: null, ca: null });
  });

  it("starts commands with what is granted at that moment, below what the request says and above what the image does", async () => {
    const commands: Command[] = [];
    machine.runCommand = (command) => {
      commands.push(command);
      return Promise.resolve(success(""));
    };
    machine.defaults = {
      env: { TOKEN: "of the image", http_proxy: "of the image", LANG: "C" },
      workdir: "",
      user: "",
      entrypoint: [],
      cmd: [],
    };
    await squashd.sandboxes.create({ id: "a" }, never);
    await squashd.sandboxes.exec("a", { cmd: "x", env: { https_proxy: "own" } }, never);
    secrets = { OTHER: "another" };
    await squashd.sandboxes.exec("a", { cmd: ["x"] }, never);
    secrets = {};
    await squashd.sandboxes.exec("a", { cmd: ["x"] }, never);
    const [first, second, third] = commands.map(({ env }) => env);
    expect(first).toMatchObject({
      TOKEN: "placeholder",
      http_proxy: "http://10.0.0.1:8888",
      https_proxy: "own",
      LANG: "C",
    });
    expect(first).toMatchObject({ SSL_CERT_FILE: "/bundle" });
    expect(second).toMatchObject({ TOKEN: "of the image", OTHER: "another", https_proxy: "http://10.0.0.1:8888" });
    expect(third).toEqual({ TOKEN: "of the image", http_proxy: "of the image", LANG: "C" });
  });

  it("does not point programs to a file that the root lacks, which was made before there were secrets", async () => {
    const commands: Command[] = [];
    machine.runCommand = (command) => {
      commands.push(command);
      return Promise.resolve(success(""));
    };
    secrets = {};
    await squashd.sandboxes.create({ id: "a" }, never);
    secrets = { TOKEN: "placeholder" };
    await squashd.sandboxes.exec("a", { cmd: "x" }, never);
    expect(commands[0]?.env["TOKEN"]).toBe("placeholder");
    expect(commands[0]?.env["SSL_CERT_FILE"]).toBeUndefined();
  });
});

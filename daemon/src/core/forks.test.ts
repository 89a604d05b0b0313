import { describe, expect, it } from "vitest";
import type { SandboxInfo } from "@squash/sdk/protocol";
import type { FakeSquashd } from "./testing/fake-squashd.js";
import { operationsOf, prepared, squashdWith } from "./testing/time-worlds.js";

const never = new AbortController().signal;

describe("forks", () => {
  it("are made all or not at all", async () => {
    const { machine, sandboxes, forks } = await squashdWith(["a"]);
    const before = machine.state();
    machine.failing.set("giveRoot", 1);
    await expect(forks.fork("a", { count: 5 }, never)).rejects.toMatchObject({ code: "create_failed" });
    expect(machine.state()).toEqual(before);
    machine.failing.set("syncSnapshotImage", 1); // their files would not outlast a crash
    await expect(forks.fork("a", { count: 5 }, never)).rejects.toMatchObject({ code: "snapshot_failed" });
    expect(machine.state()).toEqual(before);
    const made = await forks.fork("a", { count: 5 }, never);
    expect(new Set(made.map(({ id }) => id)).size).toBe(5);
    for (const { id } of made) await sandboxes.destroy(id);
    expect(machine.state()).toEqual(before);
  });

  it.each([1, 3])("of %d at once that fail anywhere leave nothing, and the sandbox goes on", async (count) => {
    const work = ({ forks }: FakeSquashd): Promise<SandboxInfo[]> => forks.fork("a", { count }, never);
    const operations = await operationsOf(work);
    expect(operations).toEqual(expect.arrayContaining(["freezeCell", "capture", "thawCell", "limitCell", "giveRoot"]));
    for (const operation of operations) {
      const squashd = await prepared();
      const { machine, sandboxes } = squashd;
      const before = machine.state();
      machine.failing.set(operation, 1);
      const made = await work(squashd).catch((error: unknown) => {
        expect(error).toMatchObject({
          code: expect.stringMatching(/^(create_failed|snapshot_failed|snapshot_damaged)$/) as string,
        });
        return [];
      });
      for (const { id } of made) await sandboxes.destroy(id); // what can be tried again was
      machine.failing.clear();
      expect({ operation, state: machine.state() }).toEqual({ operation, state: before });
      await sandboxes.exec("a", { cmd: "true" }, never);
      expect(await work(squashd)).toHaveLength(count);
    }
  });

  it.each([
    { count: 1, ahead: ["cell 1", "directory b", "netns squash-b", "network 1 b open", "upper /sandboxes/b/upper.0"] },
    { count: 2, ahead: [] },
  ])("of $count wait for the files in the midst of being made: $ahead", async ({ count, ahead }) => {
    const { machine, forks } = await squashdWith(["a"]);
    const before = machine.state();
    let open = (): void => undefined;
    const gate = new Promise<void>((resolve) => (open = resolve));
    const capture = machine.capture.bind(machine);
    machine.capture = async (...args) => {
      await gate;
      return capture(...args);
    };
    const forking = forks.fork("a", count === 1 ? { target_id: "b" } : { count }, never);
    await new Promise((done) => setTimeout(done, 20));
    expect(machine.state()).toEqual([...before, ...ahead, "frozen 0"].toSorted());
    open();
    expect(await forking).toHaveLength(count);
    expect(machine.frozen.size).toBe(0);
  });
});

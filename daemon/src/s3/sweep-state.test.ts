import { describe, expect, it } from "vitest";
import { FakeObjectStore } from "../core/testing/fake-object-store.js";
import { SealedJson } from "./sealed-json.js";
import { Sweeps } from "./sweep-state.js";

const { signal } = new AbortController();
const minute = 60_000;

function world(serverMs = Date.now()): { clock: { ms: number }; sweeps: Sweeps; store: FakeObjectStore } {
  const clock = { ms: serverMs };
  const store = new FakeObjectStore({ serverMs: () => clock.ms });
  return { clock, sweeps: new Sweeps(new SealedJson(store), () => clock.ms), store };
}

describe("a sweep of the bucket", () => {
  it("is one at a time, and each has a number", async () => {
    const { sweeps } = world();
    expect(await sweeps.read(signal)).toMatchObject({ epoch: 0, untilMs: null });
    const sweep = await sweeps.begin(signal);
    expect((await sweeps.read(signal)).epoch).toBe(1);
    expect((await sweeps.read(signal)).untilMs).not.toBeNull();
    await expect(sweeps.begin(signal)).rejects.toThrow("another machine does so");
    await sweep.end(signal);
    expect(await sweeps.read(signal)).toMatchObject({ epoch: 1, untilMs: null });
    await sweeps.begin(signal);
    expect((await sweeps.read(signal)).epoch).toBe(2);
  });

  it("is begun by one of two that want it at the same time", async () => {
    const { sweeps } = world();
    const both = await Promise.allSettled([sweeps.begin(signal), sweeps.begin(signal)]);
    expect(both.map(({ status }) => status).toSorted()).toEqual(["fulfilled", "rejected"]);
  });

  it("is over by itself, and does not go on after that, though nobody else has begun", async () => {
    const { sweeps, clock } = world();
    const sweep = await sweeps.begin(signal);
    clock.ms += 9 * minute;
    await sweep.goOn(signal);
    clock.ms += 5 * minute;
    expect((await sweeps.read(signal)).untilMs).not.toBeNull();
    clock.ms += 5 * minute + 1;
    expect((await sweeps.read(signal)).untilMs).toBeNull();
    await expect(sweep.goOn(signal)).rejects.toThrow("it took too long");
    await sweep.end(signal);
    await (await sweeps.begin(signal)).end(signal);
    await expect(sweep.goOn(signal)).rejects.toThrow("another machine does so");
  });

  it.each([-3_600_000, 3_600_000])(
    "has the store's time, also the first one where this clock is wrong by %i ms",
    async (by) => {
      const { sweeps, clock } = world(Date.now() + by);
      const sweep = await sweeps.begin(signal);
      expect(sweep.serverMs).toBe(clock.ms);
      expect((await sweeps.read(signal)).untilMs).toBe(clock.ms + 10 * minute);
    },
  );

  it("says that it goes on as often as that is needed, and not more", async () => {
    const { sweeps, store, clock } = world();
    const sweep = await sweeps.begin(signal);
    let writes = 0;
    store.written = () => {
      writes++;
    };
    await Promise.all([sweep.keep(signal), sweep.keep(signal)]);
    expect(writes).toBe(0);
    for (let said = 1; said < 30; said++) {
      clock.ms += minute;
      await Promise.all([sweep.keep(signal), sweep.keep(signal), sweep.keep(signal)]);
      expect(writes).toBe(said);
    }
  });

  it("is not begun, nor taken for none, where its state cannot be read", async () => {
    const { sweeps, store } = world();
    await (await sweeps.begin(signal)).end(signal);
    const there = store.objects.get("gc/state.json");
    if (there === undefined) throw new Error("it has no state");
    store.objects.set("gc/state.json", { ...there, body: Buffer.from("{}") });
    const invalid = { code: "s3_object_invalid", message: expect.stringContaining("gc/state.json") as unknown };
    await expect(sweeps.read(signal)).rejects.toMatchObject(invalid);
    await expect(sweeps.begin(signal)).rejects.toMatchObject(invalid);
  });
});

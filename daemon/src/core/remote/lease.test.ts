import { createHash } from "node:crypto";
import { beforeEach, describe, expect, it } from "vitest";
import { FakeObjectStore, type Fate } from "../testing/fake-object-store.js";
import { savedSandbox } from "../testing/saved-sandbox.js";
import { VirtualTime } from "../testing/virtual-time.js";
import { Leases, type LeasesOptions } from "./lease.js";

const storeEpoch = Date.parse("2026-01-01T00:00:00.000Z");
const manifest = "sandboxes/a/manifest.json";
const leaseS = 60;

let time: VirtualTime;
let store: FakeObjectStore;
let told: string[];

beforeEach(() => {
  time = new VirtualTime();
  store = new FakeObjectStore({ serverMs: () => storeEpoch + time.now, sleep: (ms) => time.sleep(ms) });
  told = [];
});

/** A squashd's leases, whose clock says something of its own. */
function leasesOf(machine: string, more: Partial<LeasesOptions> = {}): Leases {
  const now = (): number => 5_000_000 + time.now;
  return new Leases({
    machine,
    leaseS,
    store,
    clock: { now, sleep: (ms, signal) => time.sleep(ms, signal) },
    sha256: (text) => createHash("sha256").update(text).digest("hex"),
    random: () => 1,
    listener: {
      extended: (id, deadlineMs) => told.push(`${machine} ${id} until +${Math.round((deadlineMs - now()) / 1_000)} s`),
      lost: (id, reason) => told.push(`${machine} lost ${id}: ${reason}`),
    },
    ...more,
  });
}

/** What becomes of a promise while virtual time passes. */
async function during<T>(promise: Promise<T>, ms = 0): Promise<T> {
  promise.catch(() => undefined);
  await time.advance(ms);
  return promise;
}

/** Gives the next requests of a kind their fates, in their order. */
function fates(operation: "read" | "write", ...list: Fate[]): void {
  store.fate = (of) => (of === operation ? (list.shift() ?? {}) : {});
}

function stored(): { epoch: number; lease: { machine: string; until_ms: number } | null; sandbox: unknown } {
  return JSON.parse(store.objects.get(manifest)?.body.toString() ?? "") as ReturnType<typeof stored>;
}

/** The manifest as somebody else wrote it. */
function objectOf(text: string): ReturnType<FakeObjectStore["objects"]["get"]> & object {
  const body = Buffer.from(text);
  return { key: manifest, size: body.length, etag: '"x"', modifiedMs: storeEpoch, body };
}

const save = (label: string) => () => savedSandbox({ latestSnapshot: label });
const code = (name: string): unknown => expect.objectContaining({ code: name });

describe("a lease", () => {
  it("of an id that nobody has ever had is made, with nothing saved", async () => {
    expect(await during(leasesOf("one").acquire("a"))).toEqual({
      sandbox: null,
      epoch: 1,
      etag: store.objects.get(manifest)?.etag,
    });
    expect(stored()).toMatchObject({ epoch: 1, lease: { machine: "one", until_ms: storeEpoch + 60_000 } });
  });

  it("keeps others from the sandbox, and says who has it and until when", async () => {
    await during(leasesOf("one").acquire("a"));
    await expect(during(leasesOf("two").acquire("a"))).rejects.toMatchObject({
      code: "sandbox_leased",
      details: { machine: "one", until: "2026-01-01T00:01:00.000Z" },
    });
  });

  it("is renewed for as long as squashd runs", async () => {
    const one = leasesOf("one");
    await during(one.acquire("a"));
    await time.advance(3_600_000);
    expect(one.deadlineOf("a")).toBeGreaterThan(5_000_000 + time.now);
    expect(stored().lease?.until_ms).toBeGreaterThan(storeEpoch + time.now);
    await expect(during(leasesOf("two").acquire("a"))).rejects.toEqual(code("sandbox_leased"));
  });

  it("is counted from before it was asked for, and not used to its end", async () => {
    const one = leasesOf("one");
    fates("write", { there: 2_000, back: 3_000 }, { there: 2_000, back: 3_000 });
    await during(one.acquire("a"), 20_000);
    // three quarters of the lease, without what clocks may be wrong, from the start of the second write, which was at 5 s
    expect(one.deadlineOf("a")).toBe(5_000_000 + 5_000 + 0.75 * (60_000 - 2_000));
  });

  it("that is not renewed is taken by another once the store's clock has passed its end, with all that was saved", async () => {
    const one = leasesOf("one");
    await during(one.acquire("a"));
    await during(one.commit("a", save("first")));
    one.stop();
    await time.advance(60_000);
    await expect(during(leasesOf("two").acquire("a"))).rejects.toEqual(code("sandbox_leased"));
    await time.advance(1);
    const two = await during(leasesOf("two").acquire("a"));
    expect(two).toMatchObject({ epoch: 2, sandbox: { latestSnapshot: "first" } });
  });

  it("is given up in time when the store cannot be reached, while nobody else can have it yet", async () => {
    const one = leasesOf("one");
    await during(one.acquire("a"));
    store.fate = () => ({ fault: "unreachable" });
    await time.advance(43_499);
    expect(one.deadlineOf("a")).not.toBeNull();
    await time.advance(1);
    expect(one.deadlineOf("a")).toBeNull();
    expect(told.at(-1)).toBe("one lost a: expired");
    expect(one.ids()).toEqual([]);
    store.fate = () => ({});
    await expect(during(leasesOf("two").acquire("a"))).rejects.toEqual(code("sandbox_leased"));
    await expect(during(one.commit("a", save("late")))).rejects.toEqual(code("lease_lost"));
  });

  it("is given up in time when the store does not answer at all", async () => {
    const one = leasesOf("one");
    await during(one.acquire("a"));
    store.fate = () => ({ there: 1e12 });
    await time.advance(43_500);
    expect(told.at(-1)).toBe("one lost a: expired");
  });

  it("outlives a spell without the store that is short enough", async () => {
    const one = leasesOf("one");
    await during(one.acquire("a"));
    store.fate = () => ({ fault: "unreachable" });
    await time.advance(35_000);
    store.fate = () => ({});
    await time.advance(100_000);
    expect(one.deadlineOf("a")).not.toBeNull();
    expect(told.some((line) => line.includes("lost"))).toBe(false);
  });

  it("of the machine's own from before a restart is taken at once, and what that still writes is refused", async () => {
    const before = leasesOf("one");
    await during(before.acquire("a"));
    await during(before.commit("a", save("first")));
    const after = leasesOf("one");
    expect(await during(after.acquire("a"))).toMatchObject({ epoch: 2, sandbox: { latestSnapshot: "first" } });
    await expect(during(before.commit("a", save("second")))).rejects.toEqual(code("lease_lost"));
    expect(told).toContain("one lost a: taken");
    expect(stored()).toMatchObject({ epoch: 2, sandbox: { latest_snapshot: "first" } });
  });

  it("is not the machine's to go on with where another has had it since, whether or not that has it still", async () => {
    const first = leasesOf("one");
    await during(first.acquire("a"));
    first.stop();
    // nobody else has had it
    const restarted = leasesOf("one");
    await during(restarted.reacquire("a"));
    restarted.stop();
    await time.advance(leaseS * 1_000 + 1_000);
    const second = leasesOf("two");
    await during(second.acquire("a"));
    await during(second.commit("a", save("theirs")));
    await expect(during(leasesOf("one").reacquire("a"))).rejects.toEqual(code("lease_lost"));
    await during(second.release("a"));
    await expect(during(leasesOf("one").reacquire("a"))).rejects.toEqual(code("lease_lost"));
    expect(stored()).toMatchObject({ epoch: 3, lease: null });
    // what is saved is had by whoever asks for that
    const anew = leasesOf("one");
    expect((await during(anew.acquire("a"))).sandbox).toMatchObject({ latestSnapshot: "theirs" });
    anew.stop();
    const third = leasesOf("three");
    await time.advance(leaseS * 1_000 + 1_000);
    await during(third.acquire("a"));
    third.stop();
    await time.advance(leaseS * 1_000 + 1_000);
    await expect(during(leasesOf("one").reacquire("a"))).rejects.toEqual(code("lease_lost"));
    await during(leasesOf("one").reacquire("new"));
  });

  it("that is released can be taken at once", async () => {
    const one = leasesOf("one");
    await during(one.acquire("a"));
    await during(one.release("a"));
    await during(one.release("a"));
    expect(one.deadlineOf("a")).toBeNull();
    expect(stored().lease).toBeNull();
    expect(await during(leasesOf("two").acquire("a"))).toMatchObject({ epoch: 2 });
    expect(told.some((line) => line.includes("lost"))).toBe(false);
  });

  it("that is released with what was saved under it is that of an id which nobody has ever had", async () => {
    const one = leasesOf("one");
    await during(one.acquire("a"));
    await during(one.commit("a", save("first")));
    fates("write", { fault: "repeated" });
    await during(one.release("a", { forget: true }));
    expect(stored()).toMatchObject({ epoch: 1, lease: null, sandbox: null });
    expect(await during(leasesOf("two").acquire("a"))).toMatchObject({ epoch: 2, sandbox: null });
  });

  it("that is released late forgets nothing of what another machine has saved meanwhile", async () => {
    const one = leasesOf("one");
    await during(one.acquire("a"));
    await during(one.commit("a", save("first")));
    const two = leasesOf("two");
    fates("write", { there: 70_000 });
    const released = one.release("a", { forget: true });
    await expect(during(released, 61_000)).rejects.toEqual(code("s3_unreachable"));
    await during(two.acquire("a"));
    await during(two.commit("a", save("second")));
    await time.advance(20_000);
    expect(stored()).toMatchObject({ epoch: 2, lease: { machine: "two" }, sandbox: { latest_snapshot: "second" } });
  });

  it("that is released while the store cannot be reached is over for this machine all the same", async () => {
    const one = leasesOf("one");
    await during(one.acquire("a"));
    store.fate = () => ({ fault: "unreachable" });
    const released = one.release("a");
    expect(one.deadlineOf("a")).toBeNull();
    await expect(during(released)).rejects.toEqual(code("s3_unreachable"));
    store.fate = () => ({});
    await time.advance(60_001);
    expect(await during(leasesOf("two").acquire("a"))).toMatchObject({ epoch: 2 });
  });

  it("is not written back once it was released, by a renewal that was under way", async () => {
    const one = leasesOf("one");
    await during(one.acquire("a"));
    fates("write", { there: 30_000 }, {});
    const late = one.renew("a");
    await expect(during(late, 10_000)).rejects.toEqual(code("s3_unreachable"));
    await during(one.release("a"));
    await time.advance(60_000);
    expect(stored().lease).toBeNull();
  });

  it("is the machine's own when the answer to its first write is lost, and asked for again", async () => {
    fates("write", { fault: "repeated" });
    expect(await during(leasesOf("one").acquire("a"))).toMatchObject({ epoch: 1 });
  });

  it("is only one's of two who ask at the same moment", async () => {
    const results = Promise.allSettled(["one", "two", "three"].map((machine) => leasesOf(machine).acquire("a")));
    expect((await during(results)).filter(({ status }) => status === "fulfilled")).toHaveLength(1);
    expect(stored().epoch).toBe(1);
  });

  it("is not had when the store answers too slowly to rely on it", async () => {
    store.fate = (of) => (of === "write" ? { back: 9_900, there: 0 } : { there: 9_900 });
    const one = leasesOf("one", { leaseS: 10 });
    await expect(during(one.acquire("a"), 60_000)).rejects.toEqual(code("s3_unreachable"));
    expect(one.ids()).toEqual([]);
  });

  it("is not had of a manifest that is not whole", async () => {
    store.objects.set(manifest, objectOf("{}"));
    await expect(during(leasesOf("one").acquire("a"))).rejects.toEqual(code("s3_object_invalid"));
    expect(store.objects.get(manifest)?.body.toString()).toBe("{}");
  });

  it("of a sandbox that an older daemon saved is had, with what that wrote", async () => {
    const older = { id: "a", layers: "000-base", owner: "", task: "", cpu: 1, memory_mb: 64, max_lifetime_s: 0 };
    const text = JSON.stringify({ ...older, allow_net: "none", latest_snapshot: "old" });
    store.objects.set(manifest, objectOf(text));
    expect(await during(leasesOf("one").acquire("a"))).toMatchObject({ epoch: 1, sandbox: { latestSnapshot: "old" } });
  });
});

describe("what is saved under a lease", () => {
  it("is there for whoever has the sandbox next, and the lease is renewed by it", async () => {
    const one = leasesOf("one");
    await during(one.acquire("a"));
    await time.advance(10_000);
    await during(one.commit("a", save("first")));
    expect(stored()).toMatchObject({
      epoch: 1,
      sandbox: { latest_snapshot: "first" },
      lease: { until_ms: storeEpoch + 70_000 },
    });
  });

  it.each(["repeated", "unanswered"] as const)("is saved once when the answer is lost (%s)", async (fault) => {
    const one = leasesOf("one");
    await during(one.acquire("a"));
    let calls = 0;
    const change = (): ReturnType<typeof savedSandbox> => savedSandbox({ latestSnapshot: `s${++calls}` });
    fates("write", { fault });
    const committed = during(one.commit("a", change));
    if (fault === "unanswered") await expect(committed).rejects.toEqual(code("s3_unreachable"));
    else await committed;
    expect(stored()).toMatchObject({ sandbox: { latest_snapshot: "s1" } });
    await during(one.commit("a", save("next")));
    expect(stored()).toMatchObject({ epoch: 1, sandbox: { latest_snapshot: "next" } });
    expect(one.ids()).toEqual(["a"]);
  });

  it("is refused once another machine has the sandbox, which is heard of", async () => {
    const one = leasesOf("one");
    await during(one.acquire("a"));
    // what no squashd would do, so that it is not expired when it is taken
    store.objects.delete(manifest);
    await during(leasesOf("two").acquire("a"));
    await expect(during(one.commit("a", save("mine")))).rejects.toEqual(code("lease_lost"));
    expect(told).toContain("one lost a: taken");
    expect(stored()).toMatchObject({ lease: { machine: "two" }, sandbox: null });
  });

  it("is written in the order in which it was asked for", async () => {
    const one = leasesOf("one");
    await during(one.acquire("a"));
    const labels: (string | null | undefined)[] = [];
    const add = (label: string) => (before: { latestSnapshot: string | null } | null) => {
      labels.push(before?.latestSnapshot);
      return savedSandbox({ latestSnapshot: label });
    };
    store.fate = () => ({ there: 100, back: 100 });
    await during(Promise.all([one.commit("a", add("1")), one.commit("a", add("2")), one.commit("a", add("3"))]), 5_000);
    expect(labels).toEqual([undefined, "1", "2"]);
    expect(stored()).toMatchObject({ sandbox: { latest_snapshot: "3" } });
  });
});

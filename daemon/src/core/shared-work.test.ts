import { setTimeout as sleep } from "node:timers/promises";
import { beforeEach, describe, expect, it } from "vitest";
import type { JobContext } from "./jobs.js";
import { SharedWork } from "./shared-work.js";

/** Who wants work done, and may go. */
class Asker implements JobContext {
  readonly #leaving = new AbortController();
  readonly signal = this.#leaving.signal;
  readonly told: string[] = [];
  readonly progress = (step: string): void => void this.told.push(step);

  leave(): void {
    this.#leaving.abort();
  }
}

let shared: SharedWork<string>;
/** what was begun, each with what ends it */
let begun: { context: JobContext; end: (result: string) => void; fail: (error: Error) => void }[];
/** ms that work goes on for once it is called off */
let dying: number;
/** how often such work has ended */
let over: number;

beforeEach(() => {
  shared = new SharedWork();
  begun = [];
  [dying, over] = [0, 0];
});

function work(context: JobContext): Promise<string> {
  return new Promise<string>((end, fail) => {
    begun.push({ context, end, fail });
    const die = (): void => {
      over++;
      fail(new Error("called off"));
    };
    context.signal.addEventListener("abort", () => setTimeout(die, dying));
  });
}

async function ask(asker: Asker, key = "a"): Promise<{ result: Promise<string> }> {
  const result = shared.run(key, asker, work);
  result.catch(() => undefined);
  await sleep(0);
  return { result };
}

const cancelled = { code: "cancelled" };

describe("work that several want", () => {
  it("is done once for all that want it meanwhile, and anew for who comes afterwards", async () => {
    const asked = [await ask(new Asker()), await ask(new Asker())];
    expect(begun).toHaveLength(1);
    begun[0]?.end("1");
    expect(await Promise.all(asked.map(({ result }) => result))).toEqual(["1", "1"]);
    const { result } = await ask(new Asker());
    begun[1]?.end("2");
    expect(await result).toBe("2");
  });

  it("is another one for each key", async () => {
    const asked = [await ask(new Asker(), "a"), await ask(new Asker(), "b")];
    for (const [index, { end }] of begun.entries()) end(String(index));
    expect(await Promise.all(asked.map(({ result }) => result))).toEqual(["0", "1"]);
  });

  it("fails for all as it does", async () => {
    const asked = [await ask(new Asker()), await ask(new Asker())];
    begun[0]?.fail(new Error("bad"));
    for (const { result } of asked) await expect(result).rejects.toThrow("bad");
  });

  it("goes on for the others when the one goes who began it", async () => {
    const [first, second] = [new Asker(), new Asker()];
    const one = await ask(first);
    const other = await ask(second);
    first.leave();
    await expect(one.result).rejects.toMatchObject(cancelled);
    expect(begun[0]?.context.signal.aborted).toBe(false);
    begun[0]?.end("done");
    expect(await other.result).toBe("done");
    second.leave();
    expect(begun).toHaveLength(1);
  });

  it("is called off when the last one goes, who waits until it is over", async () => {
    dying = 20;
    const askers = [new Asker(), new Asker()];
    const asked = [];
    for (const asker of askers) asked.push(await ask(asker));
    for (const asker of askers) asker.leave();
    for (const { result } of asked) await expect(result).rejects.toMatchObject(cancelled);
    expect(begun[0]?.context.signal.aborted).toBe(true);
    expect(over).toBe(1);
  });

  it("is begun anew for who comes when it was called off and is not over yet", async () => {
    dying = 20;
    const first = new Asker();
    const one = await ask(first);
    first.leave();
    await sleep(0);
    const other = await ask(new Asker());
    expect(begun).toHaveLength(1);
    await expect(one.result).rejects.toMatchObject(cancelled);
    await sleep(0);
    expect([begun.length, over]).toEqual([2, 1]);
    begun[1]?.end("anew");
    expect(await other.result).toBe("anew");
  });

  it("is not begun for who has gone already", async () => {
    const gone = new Asker();
    gone.leave();
    await expect((await ask(gone)).result).rejects.toMatchObject(cancelled);
    expect(begun).toEqual([]);
  });

  it("is called off by the end, whoever wants it", async () => {
    const asked = [await ask(new Asker(), "a"), await ask(new Asker(), "b")];
    await shared.close();
    expect(over).toBe(2);
    for (const { result } of asked) await expect(result).rejects.toThrow("called off");
  });

  it("tells all how far it is, also who comes later, but nobody who has gone", async () => {
    const [first, second] = [new Asker(), new Asker()];
    await ask(first);
    begun[0]?.context.progress("half", 0.5);
    const { result } = await ask(second);
    first.leave();
    await sleep(0);
    begun[0]?.context.progress("nearly", 0.9);
    begun[0]?.end("done");
    await result;
    expect([first.told, second.told]).toEqual([["half"], ["half", "nearly"]]);
  });
});

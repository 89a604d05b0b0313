import { describe, expect, it } from "vitest";
import { Slots } from "./slots.js";

const never = (): Promise<never> => Promise.reject(new Error("it began"));

describe("slots", () => {
  it("let so much work be under way and no more, whether or not it fails, and all of it in the end", async () => {
    const slots = new Slots(3);
    let now = 0;
    let most = 0;
    const work = async (index: number): Promise<number> => {
      most = Math.max(most, ++now);
      await new Promise((done) => setTimeout(done, 1));
      now--;
      if (index % 2 === 0) throw new Error("even");
      return index;
    };
    const results = await Promise.allSettled(Array.from({ length: 20 }, (_, index) => slots.run(() => work(index))));
    expect(results.filter(({ status }) => status === "fulfilled")).toHaveLength(10);
    expect([most, now]).toEqual([3, 0]);
  });

  it("let go of who is called off while waiting, and of nobody else's turn", async () => {
    const slots = new Slots(1);
    const gone = new AbortController();
    let end = (): void => undefined;
    const order: string[] = [];
    const first = slots.run(() => new Promise<void>((resolve) => (end = resolve)));
    const second = slots.run(never, gone.signal);
    const third = slots.run(() => Promise.resolve(order.push("third")), new AbortController().signal);
    gone.abort();
    await expect(second).rejects.toMatchObject({ code: "cancelled" });
    expect(order).toEqual([]);
    end();
    await Promise.all([first, third]);
    await expect(slots.run(never, gone.signal)).rejects.toMatchObject({ code: "cancelled" });
    await slots.run(() => Promise.resolve(order.push("fourth")));
    expect(order).toEqual(["third", "fourth"]);
  });

  it("leave work that has begun to hear of its end itself", async () => {
    const gone = new AbortController();
    const work = async (): Promise<string> => {
      gone.abort();
      return Promise.resolve("whole");
    };
    expect(await new Slots(1).run(work, gone.signal)).toBe("whole");
  });
});

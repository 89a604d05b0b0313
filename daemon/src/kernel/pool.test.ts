import { describe, expect, it } from "vitest";
import { FieldReader } from "./frame.js";
import type { Host } from "./host.js";
import { Pool } from "./pool.js";

/** An sq-host whose answers come when the test says so. */
function slowHost(): { pool: Pool; asked: string[]; answer: () => Promise<void> } {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(20_000n);
  const asked: string[] = [];
  const waiting: (() => void)[] = [];
  const request = (op: string): Promise<FieldReader> => {
    asked.push(op);
    return new Promise((resolve) => {
      waiting.push(() => resolve(new FieldReader(bytes)));
    });
  };
  const answer = async (): Promise<void> => {
    waiting.shift()?.();
    for (let turn = 0; turn < 20; turn++) await Promise.resolve();
  };
  return { pool: new Pool({ request, requestTwice: request } as unknown as Host), asked, answer };
}

describe("the pool", () => {
  it("asks for no more at a time than sq-host does", async () => {
    const { pool, asked, answer } = slowHost();
    const all = Promise.all(Array.from({ length: 9 }, (_, number) => pool.remove(`u/${number}`)));
    for (let done = 0; done < 9; done++) {
      expect(asked.length).toBe(Math.min(9, done + 4));
      await answer();
    }
    await all;
  });

  it("shares the next flush among those who ask while one is under way, and never that one", async () => {
    const { pool, asked, answer } = slowHost();
    const first = pool.flush();
    const later = [pool.flush(), pool.flush(), pool.flush()];
    expect(asked).toHaveLength(1);
    await answer();
    await first;
    expect(asked).toHaveLength(2);
    await answer();
    await Promise.all(later);
    expect(asked).toHaveLength(2);
  });

  it("says that what is empty takes nothing", async () => {
    const { pool, answer } = slowHost();
    const bytes = pool.bytes("u/x");
    await answer();
    expect(await bytes).toBe(20_000 - 16_384);
  });
});

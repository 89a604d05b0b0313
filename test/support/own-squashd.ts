import { afterAll, beforeAll, expect } from "vitest";
import { hostState, settledState, type HostState } from "./leaks.js";
import { TestSquashd, type SquashdOptions } from "./squashd.js";

/** Makes what a squashd needs before it starts; what it returns, such as a disk, is taken away once that has ended. */
export type Prepare = (squashd: TestSquashd) => Disposable | undefined;

/** Starts a squashd before the tests of a file or suite, once `prepare` has run; after them everything must be gone from the host. */
export function useSquashd(options: SquashdOptions & { readonly prepare?: Prepare } = {}): TestSquashd {
  const squashd = new TestSquashd(options);
  const marks = [squashd.mark];
  let before: HostState;
  let prepared: Disposable | undefined;
  beforeAll(async () => {
    before = hostState(marks);
    prepared = options.prepare?.(squashd);
    await squashd.start();
  });
  afterAll(async () => {
    if (prepared !== undefined) {
      await squashd.end();
      prepared[Symbol.dispose]();
    }
    await squashd[Symbol.asyncDispose]();
    expect(await settledState(before, marks)).toEqual(before);
  });
  return squashd;
}

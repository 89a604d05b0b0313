import { afterAll, beforeAll, expect } from "vitest";
import { hostState, settledState, type HostState } from "./leaks.js";
import { TestSquashd, type SquashdOptions } from "./squashd.js";

/** Starts a squashd before the tests of a file or suite, once `prepare` has run; after them everything must be gone from the host. */
export function useSquashd(
  options: SquashdOptions & { readonly prepare?: (squashd: TestSquashd) => void } = {},
): TestSquashd {
  const squashd = new TestSquashd(options);
  const marks = [squashd.mark];
  let before: HostState;
  beforeAll(async () => {
    before = hostState(marks);
    options.prepare?.(squashd);
    await squashd.start();
  });
  afterAll(async () => {
    await squashd[Symbol.asyncDispose]();
    expect(await settledState(before, marks)).toEqual(before);
  });
  return squashd;
}

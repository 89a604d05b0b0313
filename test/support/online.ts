import { join } from "node:path";
import { afterAll, beforeAll, expect } from "vitest";
import { TestInternet } from "./internet.js";
import { hostState, settledState, type HostState } from "./leaks.js";
import { TestNetns } from "./netns.js";
import { TestSquashd, type SquashdOptions } from "./squashd.js";

/** Makes what squashd needs to be reached, in its namespace. */
type Prepare = (squashd: TestSquashd) => Promise<AsyncDisposable>;

/** A squashd that is in the tests' internet. */
export interface Online {
  readonly squashd: TestSquashd;
  readonly internet: TestInternet;
  /** where the internet is */
  readonly outside: TestNetns;
}

/** Prepares it before the file's tests; after them everything must be gone from the host. */
export function useOnline(options: SquashdOptions & { readonly prepare?: Prepare } = {}): Online {
  const squashd = new TestSquashd(options);
  const internet = new TestInternet(squashd);
  const marks = [squashd.mark];
  let before: HostState;
  let prepared: AsyncDisposable | undefined;
  beforeAll(async () => {
    before = hostState(marks);
    await internet.start();
    prepared = await options.prepare?.(squashd);
    await squashd.start(internet.env);
  });
  afterAll(async () => {
    await squashd.destroyAll();
    expect(await squashd.client.health()).toMatchObject({ status: "ok" });
    await internet[Symbol.asyncDispose]();
    await squashd[Symbol.asyncDispose]();
    await prepared?.[Symbol.asyncDispose]();
    expect(await settledState(before, marks)).toEqual(before);
  });
  return { squashd, internet, outside: new TestNetns(join(squashd.home, "internet")) };
}

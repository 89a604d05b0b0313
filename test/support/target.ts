import { afterAll, beforeAll, expect } from "vitest";
import type { CreateOptions, Sandbox } from "@squash/sdk";
import { hostState, settledState, type HostState } from "./leaks.js";
import { createTarget, ensureProbeModule } from "./probe.js";
import { TestSquashd, type SquashdOptions } from "./squashd.js";

/** A squashd for a file of attacks, with a sandbox to attack from and a neighbour that must not notice. */
export interface Target {
  readonly squashd: TestSquashd;
  readonly sandbox: Sandbox;
  readonly neighbour: Sandbox;
}

/** Prepares it before the file's tests; after them everything must be gone from the host, and squashd must still be healthy. */
export function useTarget(options: SquashdOptions = {}, create: CreateOptions = {}): Target {
  const squashd = new TestSquashd(options);
  const marks = [squashd.mark];
  let before: HostState;
  const made: { sandbox?: Sandbox; neighbour?: Sandbox } = {};
  beforeAll(async () => {
    before = hostState(marks);
    ensureProbeModule(`${squashd.dataDir}/modules`);
    await squashd.start();
    made.sandbox = await createTarget(squashd.client, { id: "attacker", ...create });
    made.neighbour = await createTarget(squashd.client, { id: "neighbour" });
  });
  afterAll(async () => {
    await expectHealthy(squashd, made.neighbour);
    await squashd[Symbol.asyncDispose]();
    expect(await settledState(before, marks)).toEqual(before);
  });
  return {
    squashd,
    get sandbox() {
      return must(made.sandbox);
    },
    get neighbour() {
      return must(made.neighbour);
    },
  };
}

/** Squashd answers and so does the neighbour, both without delay, and it was never rebuilt. */
export async function expectHealthy(squashd: TestSquashd, neighbour: Sandbox | undefined): Promise<void> {
  const options = { deadlineMs: 5_000 };
  expect(await squashd.client.health(options)).toMatchObject({ status: "ok" });
  expect(await must(neighbour).exec("hostname", options)).toMatchObject({ stdout: "neighbour\n", exit_code: 0 });
  expect(await must(neighbour).info(options)).toMatchObject({ state: "ready", restarts: 0 });
}

function must(sandbox: Sandbox | undefined): Sandbox {
  if (sandbox === undefined) throw new Error("the sandbox was not made");
  return sandbox;
}

import type { UpperBackend } from "../ports.js";
import { FakeMachine } from "./fake-machine.js";
import { fakeSquashd, type FakeSquashd } from "./fake-squashd.js";

const never = new AbortController().signal;

/** With one more module than sandboxes have. */
export async function squashdWith(
  ids: readonly string[],
  options: { upperBackend?: UpperBackend } = {},
): Promise<FakeSquashd & { machine: FakeMachine }> {
  const machine = new FakeMachine();
  machine.modules.add("100-more");
  const squashd = fakeSquashd(machine, options);
  for (const id of ids) await squashd.sandboxes.create({ id }, never);
  return { ...squashd, machine };
}

/** Each of these operations fails at some place of the work. */
export async function operationsOf(
  work: (squashd: FakeSquashd & { machine: FakeMachine }) => Promise<unknown>,
): Promise<string[]> {
  const squashd = await prepared();
  const before = squashd.machine.calls.length;
  await work(squashd);
  return [...new Set(squashd.machine.calls.slice(before))];
}

/** A sandbox that has been restored and has a second snapshot since. */
export async function prepared(): Promise<FakeSquashd & { machine: FakeMachine }> {
  const squashd = await squashdWith(["a"], { upperBackend: "loop" });
  await squashd.snapshots.take("a", { label: "one" });
  await squashd.stacks.restore("a", { label: "one" }, never);
  await squashd.snapshots.take("a", { label: "two" });
  return squashd;
}

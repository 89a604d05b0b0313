import { availableParallelism } from "node:os";
import { describe, expect, it } from "vitest";
import { hostState, settledState } from "../support/leaks.js";
import { lacks } from "../support/needs.js";
import { TestSquashd } from "../support/squashd.js";

// Linux 6.18 numbers mount namespaces by the processor that makes them: with one of the two orders, one that is made later has a lower number
const orders = [
  ["0", "1"],
  ["1", "0"],
] as const;

describe.skipIf(lacks("root"))("squashd in a mount namespace of its own, as in a container or with PrivateTmp", () => {
  it.each(orders)("that processor %s has made starts on %s, and again", async (maker, own) => {
    const last = String(availableParallelism() - 1);
    const [first, then] = [maker, own].map((cpu) => (Number(cpu) > Number(last) ? last : cpu)) as [string, string];
    const within = ["taskset", "-c", first, "unshare", "--mount", "taskset", "-c", then];
    const squashd = new TestSquashd({ within });
    const before = hostState([squashd.mark]);
    for (let round = 0; round < 2; round++) {
      await squashd.start();
      const sandbox = await squashd.client.create({ layers: ["000-base-test"] });
      expect(await sandbox.exec("echo in")).toMatchObject({ stdout: "in\n", exit_code: 0 });
      await sandbox.destroy();
      await squashd.end();
    }
    await squashd[Symbol.asyncDispose]();
    expect(await settledState(before, [squashd.mark])).toEqual(before);
  });
});

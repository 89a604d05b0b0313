import { setImmediate } from "node:timers/promises";
import { createSecureContext, type SecureContextOptions } from "node:tls";
import { describe, expect, it } from "vitest";
import { LeafContexts } from "./leaf-contexts.js";

/** With what each context was asked to have from the beginning. */
function counted(change: (made: ReturnType<typeof createSecureContext>) => void = () => undefined): {
  readonly contexts: LeafContexts;
  readonly asked: (readonly string[])[];
} {
  const asked: string[][] = [];
  const create = (options: SecureContextOptions = {}): ReturnType<typeof createSecureContext> => {
    asked.push(Object.keys(options).toSorted());
    const made = createSecureContext(options);
    change(made);
    return made;
  };
  return { contexts: new LeafContexts(create), asked };
}

const turns = async (count: number): Promise<void> => {
  for (let turn = 0; turn < count; turn += 1) await setImmediate();
};

// what they serve is tried in leaf-issuer.test.ts
describe("contexts of leaf certificates", () => {
  it("have read their key before they are asked for, a bounded number of them", async () => {
    const { contexts, asked } = counted();
    expect(contexts.ready).toBe(0);
    await turns(20);
    expect(contexts.ready).toBe(8);
    expect(asked).toHaveLength(8);
    expect(new Set(asked.map(String))).toEqual(new Set(["key,minVersion"]));
  });

  it("refuse what is not a certificate, whether or not one was ready", async () => {
    const { contexts } = counted();
    expect(() => contexts.make(Buffer.from("nothing"))).toThrow();
    await turns(20);
    expect(() => contexts.make(Buffer.from("nothing"))).toThrow();
  });

  it("are made at once where a context takes no certificate later", () => {
    const { contexts, asked } = counted((made) => (made.context = {}));
    expect(() => contexts.make(Buffer.from("nothing"))).toThrow();
    expect(asked.at(-1)).toEqual(["cert", "key", "minVersion"]);
  });
});

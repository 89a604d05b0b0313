import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { addressNumber, addressValue, type AddressValue } from "./firewall.js";
import { Learned, type Change } from "./learned.js";
import { policyOf } from "./testing/ask.js";
import { fuzz } from "./testing/fuzz.js";
import { describeElements, KernelSets } from "./testing/kernel-sets.js";

const start = Date.parse("2026-01-01T00:00:00Z");
const web = addressNumber("93.184.216.34");
const own = "0ac80007";

/** What is learned, and the kernel's sets beside it. */
class Bed {
  readonly learned = new Learned(addressNumber("10.200.0.7"), 7n);
  readonly kernel = new KernelSets();
  now = start;
  changes = 0;

  constructor() {
    this.kernel.now = start;
  }

  apply({ remove, add }: Change): void {
    this.kernel.update(remove, add);
    this.changes += remove.length + add.length;
    this.check();
  }

  check(): void {
    expect(this.kernel.state()).toEqual(describeElements(this.learned.elements()));
  }

  resolve(allow: string, name: string, destinations: readonly AddressValue[], ttlS = 60): void {
    this.apply(this.learned.add(policyOf(allow), name, { destinations, ttlS }, this.now));
  }

  /** Goes on by so many seconds; what has ended is let go. */
  pass(seconds: number, allow: string, isInUse: (destination: AddressValue) => boolean = () => false): void {
    this.now += seconds * 1000;
    this.kernel.now = this.now;
    this.check();
    this.apply(this.learned.expire(policyOf(allow), isInUse, this.now));
  }
}

describe("Learned", () => {
  it("opens the addresses of a name, with what the policy grants to it", () => {
    const bed = new Bed();
    bed.resolve("a.example:5432 b.example", "a.example", [web]);
    expect(bed.kernel.state()).toEqual([`learned_port ${own}5db8d822` + "06000000" + "15380000" + " 1"]);
    bed.resolve("a.example:5432 b.example", "b.example", [web]);
    expect(bed.kernel.state()).toHaveLength(2);
    expect(bed.learned.has(web)).toBe(true);
    expect(bed.learned.has(web + 1)).toBe(false);
  });

  it("keeps addresses of IPv6 apart, of which each element counts twice", () => {
    const bed = new Bed();
    bed.resolve("a.example:5432 a.example:22", "a.example", [web, addressValue("2606:2800::1")]);
    const six = "7".padStart(32, "0") + "26062800000000000000000000000001";
    expect(bed.kernel.state()).toEqual([
      `learned6_port ${six}06000000` + "00160000 1",
      `learned6_port ${six}06000000` + "15380000 1",
      `learned_port ${own}5db8d822` + "06000000" + "00160000 1",
      `learned_port ${own}5db8d822` + "06000000" + "15380000 1",
    ]);
    const first = addressValue("2606:2800::");
    const many = Array.from({ length: 2_000 }, (_, at) => BigInt(first) + BigInt(at));
    bed.resolve("a.example", "a.example", many);
    expect(bed.kernel.state().length).toBeLessThanOrEqual(1_024);
  });

  it("remembers the address of a name whose ports only the proxy has to know", () => {
    const bed = new Bed();
    bed.resolve("a.example:443", "a.example", [web]);
    expect([bed.kernel.state(), bed.learned.size, bed.learned.has(web)]).toEqual([[], 1, true]);
  });

  it("takes an address that an answer has twice once", () => {
    const bed = new Bed();
    bed.resolve("a.example", "a.example", [web, web]);
    expect(bed.changes).toBe(1);
  });

  it.each([
    [0, 90],
    [60, 90],
    [100, 130],
    [3_600, 3_630],
    [100_000, 3_630],
  ])("keeps an address with a TTL of %i s for %i s", (ttlS, keptS) => {
    const bed = new Bed();
    bed.resolve("a.example", "a.example", [web], ttlS);
    bed.pass(keptS - 1, "a.example");
    expect([bed.learned.hasEnded(bed.now), bed.learned.size]).toEqual([false, 1]);
    expect(bed.learned.hasEnded(bed.now + 1000)).toBe(true);
    bed.pass(1, "a.example");
    expect([bed.learned.size, bed.kernel.state()]).toEqual([0, []]);
  });

  it("has the kernel drop it by itself, two minutes later", () => {
    const bed = new Bed();
    bed.resolve("a.example", "a.example", [web]);
    const [{ timeoutS } = {}] = bed.learned.elements();
    expect(timeoutS).toBe(60 + 30 + 120);
  });

  it("tells the kernel of a name that is asked for again only when its time there would end", () => {
    const bed = new Bed();
    bed.resolve("a.example", "a.example", [web]);
    for (let at = 0; at < 60; at += 10) {
      bed.pass(10, "a.example");
      bed.resolve("a.example", "a.example", [web]);
    }
    expect(bed.changes).toBe(1);
    bed.pass(10, "a.example");
    bed.resolve("a.example", "a.example", [web]);
    expect(bed.changes).toBe(3);
    for (let at = 0; at < 80; at += 10) bed.pass(10, "a.example");
    expect(bed.kernel.state()).toHaveLength(1);
  });

  it("never shortens the time of a name", () => {
    const bed = new Bed();
    bed.resolve("a.example", "a.example", [web], 1_000);
    bed.resolve("a.example", "a.example", [web], 60);
    bed.pass(1_000, "a.example");
    expect(bed.learned.size).toBe(1);
  });

  it("keeps an address to which a connection lives, a minute at a time", () => {
    const bed = new Bed();
    bed.resolve("a.example", "a.example", [web, web + 1]);
    for (let at = 0; at < 990; at += 10) bed.pass(10, "a.example", (destination) => destination === web);
    expect([bed.learned.has(web), bed.learned.has(web + 1)]).toEqual([true, false]);
    expect(bed.kernel.state()).toEqual([`learned ${own}5db8d822 1`]);
    bed.pass(59, "a.example");
    expect(bed.learned.size).toBe(1);
    bed.pass(1, "a.example");
    expect(bed.learned.size).toBe(0);
  });

  it("keeps an address for the names that have not ended", () => {
    const bed = new Bed();
    bed.resolve("a.example:22 b.example:25", "a.example", [web], 60);
    bed.resolve("a.example:22 b.example:25", "b.example", [web], 600);
    bed.pass(90, "a.example:22 b.example:25");
    expect(bed.kernel.state()).toEqual([`learned_port ${own}5db8d822` + "06000000" + "00190000" + " 1"]);
  });

  it("lets another policy take away, and give", () => {
    const bed = new Bed();
    bed.resolve("a.example b.example", "a.example", [web]);
    bed.resolve("a.example b.example", "b.example", [web + 1]);
    bed.apply(bed.learned.repolicy(policyOf("a.example:22"), bed.now));
    expect(bed.kernel.state()).toEqual([`learned_port ${own}5db8d822` + "06000000" + "00160000" + " 1"]);
    expect(bed.learned.has(web + 1)).toBe(false);
    bed.apply(bed.learned.repolicy(policyOf("a.example b.example"), bed.now));
    expect(bed.kernel.state()).toEqual([`learned ${own}5db8d822 1`]);
  });

  it("has what a policy adds in the kernel for as long as it counts on it", () => {
    const bed = new Bed();
    bed.resolve("a.example:22 b.example:25", "a.example", [web], 3_600);
    bed.resolve("a.example:22 b.example:25", "b.example", [web], 60);
    // the longer name goes: what is added for the shorter one must not be taken for as lasting as the longer
    bed.apply(bed.learned.repolicy(policyOf("b.example:25 b.example:26"), bed.now));
    for (let at = 0; at < 60; at += 1) {
      bed.resolve("b.example:25 b.example:26", "b.example", [web], 60);
      bed.pass(10, "b.example:25 b.example:26");
    }
    expect(bed.kernel.state()).toHaveLength(2);
  });

  it("takes a change back that the kernel refused", () => {
    const bed = new Bed();
    bed.resolve("*.example:22", "a.example", [web]);
    const before = bed.learned.elements();
    bed.learned.repolicy(policyOf("b.example"), bed.now).undo();
    expect(bed.learned.elements()).toEqual(before);
    bed.learned.add(policyOf("*.example:22"), "b.example", { destinations: [web, web + 1], ttlS: 60 }, bed.now).undo();
    expect([bed.learned.elements(), bed.learned.size]).toEqual([before, 1]);
    bed.apply(bed.learned.repolicy(policyOf("b.example"), bed.now));
    expect(bed.kernel.state()).toEqual([]);
  });
});

describe("too many addresses", () => {
  const ports = (count: number): string => Array.from({ length: count }, (_, at) => `*.example:${at + 1000}`).join(" ");

  it("make those go that would end first, but not the ones that were just asked for", () => {
    const bed = new Bed();
    for (let at = 0; at < 64; at += 1) {
      const destinations = Array.from({ length: 32 }, (_, each) => web + at * 32 + each);
      bed.resolve("*.example", `n${at}.example`, destinations, 3_600 - at * 50);
    }
    expect(bed.kernel.state()).toHaveLength(2_048);
    bed.resolve("*.example", "last.example", [1, 2, 3], 0);
    expect(bed.kernel.state()).toHaveLength(1_792);
    expect([1, 2, 3, web, web + 63 * 32].map((each) => bed.learned.has(each))).toEqual([true, true, true, true, false]);
  });

  it("are counted by what they need in the kernel, under each policy", () => {
    const bed = new Bed();
    for (let at = 0; at < 30; at += 1)
      bed.resolve(
        "*.example",
        `n${at}.example`,
        [...Array(32).keys()].map((each) => at * 32 + each),
      );
    expect(bed.learned.size).toBe(960);
    bed.apply(bed.learned.repolicy(policyOf(ports(20)), bed.now));
    expect(bed.kernel.state().length).toBeGreaterThan(1_700);
    expect(bed.kernel.state().length).toBeLessThanOrEqual(2_048);
  });

  it("of one answer are opened as far as there is room", () => {
    const bed = new Bed();
    bed.resolve(ports(250), "a.example", [...Array(32).keys()]);
    expect(bed.kernel.state()).toHaveLength(2_000);
  });

  it("that open nothing are bounded as well", () => {
    const bed = new Bed();
    for (let at = 0; at < 100; at += 1)
      bed.resolve(
        "*.example:443",
        `n${at}.example`,
        [...Array(32).keys()].map((each) => at * 32 + each),
      );
    expect(bed.learned.size).toBeLessThanOrEqual(2_048);
  });

  it("that had to go are back after an undo", () => {
    const bed = new Bed();
    for (let at = 0; at < 64; at += 1)
      bed.resolve(
        "*.example",
        `n${at}.example`,
        [...Array(32).keys()].map((each) => at * 32 + each),
      );
    bed.learned.add(policyOf("*.example"), "x.example", { destinations: [web], ttlS: 60 }, bed.now).undo();
    bed.check();
  });
});

const policies = ["a.example", "a.example:22 b.example:25", "*.example a.example:53/udp", "c.example:443 b.example"];
const names = ["a.example", "b.example", "c.example"];
const step = fc.oneof(
  fc.record({
    kind: fc.constant("add" as const),
    name: fc.constantFrom(...names),
    destinations: fc.array(fc.nat(5), { maxLength: 4 }),
    ttlS: fc.constantFrom(0, 60, 100, 500, 4_000),
    fails: fc.boolean(),
  }),
  fc.record({ kind: fc.constant("policy" as const), policy: fc.constantFrom(...policies), fails: fc.boolean() }),
  fc.record({ kind: fc.constant("pass" as const), seconds: fc.nat(59), inUse: fc.nat(63) }),
);

describe("whatever happens", () => {
  it("the kernel accepts every change, and has what is believed to be there", () => {
    fuzz(
      fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
        const bed = new Bed();
        let policy = policies[0]!;
        for (const each of steps) {
          if (each.kind === "pass") {
            bed.pass(each.seconds, policy, (destination) => (each.inUse & (1 << Number(destination))) !== 0);
            continue;
          }
          const change =
            each.kind === "add"
              ? bed.learned.add(policyOf(policy), each.name, each, bed.now)
              : bed.learned.repolicy(policyOf(each.policy), bed.now);
          if (each.fails) change.undo();
          else bed.apply(change);
          bed.check();
          if (each.kind === "policy" && !each.fails) policy = each.policy;
        }
        // nothing stays for ever
        for (let at = 0; at < 70; at += 1) bed.pass(59, policy);
        expect([bed.learned.size, bed.kernel.state()]).toEqual([0, []]);
      }),
      300,
    );
  });
});

import fc from "fast-check";
import type { Operation } from "./operations.js";

/** Names that a module, a snapshot and what is written since are likely to share. */
const paths = [
  "a",
  "b",
  "dir",
  "dir/x",
  "dir/y z",
  "dir/sub",
  "dir/sub/ä",
  "low",
  "low/one",
  "low/two",
  "low/deep",
  "low/deep/1",
  "top",
];
const modes = [0o644, 0o600, 0o755, 0o400, 0, 0o4755, 0o2755, 0o2644, 0o1777];
const sizes = [0, 1, 4095, 4096, 100_000, 5_000_000];
const attributes = ["user.one", "user.two", "user.overlay.opaque"];

const path = fc.constantFrom(...paths);
const mode = fc.constantFrom(...modes);

const made = (kind: "create" | "mkdir" | "pipe" | "socket", weight: number): fc.WeightedArbitrary<Operation> => {
  const plain = fc.constantFrom(0o644, 0o700, 0o755, 0o600);
  return { weight, arbitrary: fc.record({ do: fc.constant(kind), path, mode: plain }) };
};
const named = (kind: "rmdir" | "unlink" | "remove", weight: number): fc.WeightedArbitrary<Operation> => {
  return { weight, arbitrary: fc.record({ do: fc.constant(kind), path }) };
};
const moved = (kind: "rename" | "link", weight: number): fc.WeightedArbitrary<Operation> => {
  return { weight, arbitrary: fc.record({ do: fc.constant(kind), path, to: path }) };
};

/** Anything that `tree.c` can do; attributes of users only where the machine's file systems have them. */
export function anyOperation(options: { readonly attributes: boolean }): fc.Arbitrary<Operation> {
  const attributed: fc.WeightedArbitrary<Operation>[] = [
    {
      weight: 3,
      arbitrary: fc.record({
        do: fc.constant("attribute" as const),
        path,
        name: fc.constantFrom(...attributes),
        value: fc.stringMatching(/^[a-z]{1,9}$/),
      }),
    },
    {
      weight: 1,
      arbitrary: fc.record({ do: fc.constant("unattribute" as const), path, name: fc.constantFrom(...attributes) }),
    },
  ];
  return fc.oneof(
    made("create", 5),
    made("mkdir", 5),
    made("pipe", 1),
    made("socket", 1),
    named("rmdir", 2),
    named("unlink", 2),
    named("remove", 3),
    moved("rename", 6),
    moved("link", 3),
    {
      weight: 1,
      arbitrary: fc.record({
        do: fc.constant("symlink" as const),
        path,
        target: fc.constantFrom("nowhere", "/none/at/all"),
      }),
    },
    {
      weight: 6,
      arbitrary: fc.record({
        do: fc.constant("write" as const),
        path,
        offset: fc.constantFrom(0, 0, 1, 4096, 70_000, 3_000_000),
        length: fc.constantFrom(1, 10, 4096, 9000),
        seed: fc.nat(255),
      }),
    },
    {
      weight: 3,
      arbitrary: fc.record({ do: fc.constant("truncate" as const), path, size: fc.constantFrom(...sizes) }),
    },
    { weight: 3, arbitrary: fc.record({ do: fc.constant("chmod" as const), path, mode }) },
    {
      weight: 2,
      arbitrary: fc.record({
        do: fc.constant("chown" as const),
        path,
        uid: fc.constantFrom(0, 12, 65_535),
        gid: fc.constantFrom(0, 34),
      }),
    },
    {
      weight: 2,
      arbitrary: fc.record({
        do: fc.constant("touch" as const),
        path,
        seconds: fc.nat(2_000_000_000),
        nanoseconds: fc.nat(999_999_999),
      }),
    },
    ...(options.attributes ? attributed : []),
  );
}

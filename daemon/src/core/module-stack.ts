import { SquashError } from "@squash/sdk/errors";

/** What a module says about others. */
export interface ModuleNeeds {
  readonly name: string;
  readonly requires?: readonly string[];
  readonly conflicts?: readonly string[];
}

/**
 * Checks that modules go together. Throws `module_conflict` for two of which one says that it conflicts with the other, and
 * `module_requires`, with all names that are missing, where a requirement is not among them.
 */
export function checkStack(modules: readonly ModuleNeeds[]): void {
  const names = new Set(modules.map(({ name }) => name));
  for (const { name, conflicts = [] } of modules) {
    const other = conflicts.find((each) => each !== name && names.has(each));
    if (other === undefined) continue;
    throw new SquashError(
      "module_conflict",
      `Cannot stack module "${name}" with "${other}": "${name}" conflicts with it; leave one of them out`,
      { details: { module: name, conflicts_with: other } },
    );
  }
  const missing = new Map<string, string>();
  for (const { name, requires = [] } of modules) {
    for (const wanted of requires) if (!names.has(wanted) && !missing.has(wanted)) missing.set(wanted, name);
  }
  if (missing.size === 0) return;
  const wants = [...missing].map(([wanted, by]) => `"${by}" requires "${wanted}"`);
  throw new SquashError("module_requires", `Cannot stack these modules: ${wants.join(", ")}; add what is missing`, {
    details: { missing: [...missing.keys()] },
  });
}

import { isDeepStrictEqual } from "node:util";
import type { ImageDefaults } from "../core/image-defaults.js";
import { isModuleName } from "../core/validate.js";
import { checkedDefaults } from "./module-defaults.js";

/** as many as a stack can have layers */
const maxNames = 128;
const maxBuilderLength = 512;
const fields: readonly string[] = ["name", "builder", "requires", "conflicts", "defaults"];

/** What a manifest says about the module itself, which holds for its files wherever they are: not when it was built, nor which images there are. */
export interface ModuleAbout {
  readonly name: string;
  /** who made it, such as `mkbase busybox` */
  readonly builder: string;
  /** modules that a stack with this one must have; absent: none */
  readonly requires?: readonly string[];
  /** modules that it must not have */
  readonly conflicts?: readonly string[];
  /** how programs in it are meant to be started; of an image that says so */
  readonly defaults?: ImageDefaults;
}

/** The same without what says nothing, always in one order, and `defaults` as far as they can be used: same facts, same text. */
export function aboutOf({ name, builder, requires = [], conflicts = [], defaults }: ModuleAbout): ModuleAbout {
  return {
    name,
    builder,
    ...(requires.length > 0 && { requires }),
    ...(conflicts.length > 0 && { conflicts }),
    ...(defaults !== undefined && { defaults: checkedDefaults(defaults) }),
  };
}

/** What is wrong with the lists of modules in a manifest, which may be anything; null for nothing. */
export function namesProblem({ requires, conflicts }: { requires?: unknown; conflicts?: unknown }): string | null {
  return isNames(requires) && isNames(conflicts) ? null : "requires or conflicts with what is no module's name";
}

/** What is wrong with facts that somebody sent: there must be nothing but what `aboutOf` gives. null for nothing. */
export function aboutProblem(value: unknown): string | null {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return "is not an object";
  const given = value as Partial<Record<keyof ModuleAbout, unknown>>;
  if (Object.keys(given).some((key) => !fields.includes(key))) return "has a field that is unknown";
  const { name, builder, defaults } = given;
  if (!isModuleName(name)) return "does not say of which module it is";
  if (typeof builder !== "string" || builder.length > maxBuilderLength || /\p{Cc}/u.test(builder))
    return "does not say who made it";
  const problem = namesProblem(given);
  if (problem !== null) return problem;
  if (!("defaults" in given) || isDeepStrictEqual(defaults, checkedDefaults(defaults))) return null;
  return "has defaults that no program could be started with";
}

function isNames(names: unknown): boolean {
  if (names === undefined) return true;
  return Array.isArray(names) && names.length <= maxNames && names.every(isModuleName);
}

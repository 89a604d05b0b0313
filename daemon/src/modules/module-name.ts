import { SquashError } from "@squash/sdk/errors";
import { isModuleName } from "../core/validate.js";

/** The formats of a module's image; of two images of a module, the later in this list is preferred unless it is older. */
export const moduleFormats = ["squashfs", "erofs"] as const;

export type ModuleFormat = (typeof moduleFormats)[number];

/** Throws `invalid_request` for what cannot be the name of a module. */
export function checkModuleName(name: string): void {
  if (isModuleName(name)) return;
  const wanted = 'needed are 1-128 of A-Z a-z 0-9 _ - . with no "-" or "." in front';
  throw new SquashError("invalid_request", `Cannot name a module ${JSON.stringify(name.slice(0, 200))}: ${wanted}`);
}

/** Up to three of `names` that a person may have meant by `wanted`, the nearest first. */
export function nearNames(wanted: string, names: readonly string[]): string[] {
  const sought = wanted.toLowerCase();
  return names
    .map((name) => ({ name, distance: nameDistance(sought, name.toLowerCase()) }))
    .filter(({ distance }) => distance <= Math.max(2, sought.length / 3))
    .toSorted((a, b) => a.distance - b.distance || (a.name < b.name ? -1 : 1))
    .slice(0, 3)
    .map(({ name }) => name);
}

/** Edits between two names; a name that is contained in the other, such as one without its number, is near. */
function nameDistance(a: string, b: string): number {
  if (a.length >= 3 && b.includes(a)) return 1;
  if (b.length >= 3 && a.includes(b)) return 1;
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const replaced = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(replaced, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}

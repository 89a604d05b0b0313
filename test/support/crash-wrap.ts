import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { repositoryRoot } from "./root.js";

export type Method = (this: unknown, ...args: unknown[]) => unknown;
export type Methods = Record<string, Method>;

/** What a module of the compiled daemon exports. */
export async function load(file: string): Promise<Record<string, { readonly prototype: Methods }>> {
  const url = pathToFileURL(join(repositoryRoot, "daemon/dist", file)).href;
  return (await import(url)) as Record<string, { readonly prototype: Methods }>;
}

/** Replaces a method with what `make` makes of it. */
export function wrap(methods: Methods, name: string, make: (original: Method) => Method): void {
  const original = methods[name];
  if (original === undefined) throw new Error(`there is no ${name} any more`);
  methods[name] = make(original);
}

/** The methods of a class of the compiled daemon. */
export async function methodsOf(file: string, type: string): Promise<Methods> {
  const found = (await load(file))[type];
  if (found === undefined) throw new Error(`there is no ${type} in ${file} any more`);
  return found.prototype;
}

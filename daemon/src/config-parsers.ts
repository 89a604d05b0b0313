/** One setting: where it comes from, what it is without, how its text is read. `parse` throws an Error that says what is wanted. */
export interface Setting<T> {
  readonly env: string;
  /** older or other names; the first one that is set wins */
  readonly aliases?: readonly string[];
  /** as if the environment said so */
  readonly fallback: string;
  readonly parse: (text: string) => T;
  readonly doc: string;
  /** whether its text is never shown */
  readonly secret?: true;
}

/** A whole number within bounds, which count. */
export function integer(min: number, max: number): (text: string) => number {
  return (text) => {
    const value = /^\d+$/.test(text) ? Number(text) : Number.NaN;
    if (!(value >= min && value <= max)) throw new Error(`must be a whole number from ${min} to ${max}`);
    return value;
  };
}

/** One of a few words. */
export function oneOf<const T extends string>(...choices: readonly T[]): (text: string) => T {
  return (text) => {
    const found = choices.find((choice) => choice === text);
    if (found === undefined) throw new Error(`must be one of ${choices.join(", ")}`);
    return found;
  };
}

/** A path that begins at the root, without a slash at its end. */
export function absolutePath(text: string): string {
  if (!text.startsWith("/") || text.split("/").includes("..")) throw new Error('must be an absolute path without ".."');
  return text === "/" ? text : text.replace(/\/+$/, "");
}

/** Several of them, separated by colons. */
export function absolutePaths(text: string): readonly string[] {
  return text
    .split(":")
    .filter((path) => path !== "")
    .map(absolutePath);
}

/** What can be sent in a header as it is. */
export function token(text: string): string {
  if (!/^[\x21-\x7e]*$/.test(text))
    throw new Error("must be printable ASCII without spaces, as it is sent in a header");
  return text;
}

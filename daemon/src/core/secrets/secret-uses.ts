import type { SecretUse } from "./secret-use.js";

/** How often a secret was used, and when last; null for never. */
export interface UseFigures {
  readonly uses: number;
  readonly refusals: number;
  readonly lastUsed: string | null;
}

const none: UseFigures = { uses: 0, refusals: 0, lastUsed: null };
const maxPath = 1_024;

/** Figures of all secrets, by name. */
export class SecretUses {
  readonly #figures = new Map<string, UseFigures>();

  /** With what was counted before. */
  constructor(before: Iterable<readonly [string, UseFigures]> = []) {
    for (const [name, figures] of before) this.#figures.set(name, figures);
  }

  count({ secret, allowed, time }: Pick<SecretUse, "secret" | "allowed" | "time">): void {
    const { uses, refusals, lastUsed } = this.of(secret);
    this.#figures.set(
      secret,
      allowed ? { uses: uses + 1, refusals, lastUsed: time } : { uses, refusals: refusals + 1, lastUsed },
    );
  }

  of(name: string): UseFigures {
    return this.#figures.get(name) ?? none;
  }

  all(): [string, UseFigures][] {
    return [...this.#figures];
  }

  /** Lets go of those that there are not any more. */
  keepOnly(names: ReadonlySet<string>): void {
    for (const name of this.#figures.keys()) if (!names.has(name)) this.#figures.delete(name);
  }
}

/**
 * A path as it may be written down: of a query the names alone, and the placeholders in it; what else a sandbox sends there may be secret in
 * its own way. Bounded.
 */
export function auditPath(path: string, placeholders: readonly string[]): string {
  const at = path.indexOf("?");
  const [base, query] = at === -1 ? [path, null] : [path.slice(0, at), path.slice(at + 1)];
  const parameters = (query ?? "").slice(0, maxPath * 4).split("&");
  const shown = parameters.map((parameter) => {
    const end = parameter.indexOf("=");
    if (end === -1) return placeholderIn(parameter, placeholders) ?? (parameters.length === 1 ? "…" : parameter);
    return `${parameter.slice(0, end)}=${placeholderIn(parameter.slice(end + 1), placeholders) ?? "…"}`;
  });
  const whole = query === null || query === "" ? base : `${base}?${shown.join("&")}`;
  return whole.length <= maxPath ? whole : `${whole.slice(0, maxPath)}…`;
}

function placeholderIn(text: string, placeholders: readonly string[]): string | undefined {
  return placeholders.find((placeholder) => text.includes(placeholder));
}

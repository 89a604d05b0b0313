import { SquashError } from "@squash/sdk/errors";
import { idPattern, labelPattern } from "./validate.js";

/** What one side of a comparison is. */
export type DiffSide =
  | { readonly kind: "base"; readonly sandbox: string }
  | { readonly kind: "live"; readonly sandbox: string }
  | { readonly kind: "snapshot"; readonly sandbox: string; readonly label: string };

const idExpression = new RegExp(idPattern);
const labelExpression = new RegExp(labelPattern);

/**
 * Reads `base`, `live`, a label, `@<sandbox>` (its live state) or `@<sandbox>/<label>`; the last is always a label, also one that is called
 * "base" or "live". Throws `invalid_request`.
 */
export function parseSide(text: string, own: string): DiffSide {
  if (text === "base" || text === "live") return { kind: text, sandbox: own };
  if (labelExpression.test(text)) return { kind: "snapshot", sandbox: own, label: text };
  const slash = text.indexOf("/");
  const sandbox = text.slice(1, slash < 0 ? undefined : slash);
  const label = slash < 0 ? undefined : text.slice(slash + 1);
  if (text.startsWith("@") && idExpression.test(sandbox)) {
    if (label === undefined) return { kind: "live", sandbox };
    if (labelExpression.test(label)) return { kind: "snapshot", sandbox, label };
  }
  throw new SquashError(
    "invalid_request",
    `Cannot compare with "${text.slice(0, 80)}": must be base, live, a label, @<sandbox> or @<sandbox>/<label>`,
  );
}

/** As it is shown. */
export function nameOfSide(side: DiffSide, own: string): string {
  if (side.kind === "base") return "base";
  if (side.kind === "live") return side.sandbox === own ? "live" : `@${side.sandbox}`;
  const isPlain = side.sandbox === own && side.label !== "base" && side.label !== "live";
  return isPlain ? side.label : `@${side.sandbox}/${side.label}`;
}

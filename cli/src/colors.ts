import picocolors from "picocolors";

/** Functions that colour text, or leave it as it is. */
export type Colors = ReturnType<typeof picocolors.createColors>;

/** Colours for a terminal; functions that change nothing for anything else. */
export function makeColors(isEnabled: boolean): Colors {
  return picocolors.createColors(isEnabled);
}

import type { SandboxState } from "@squash/sdk";

import type { Colors } from "./colors.js";
import type { Cell } from "./table.js";

/** A state in its colour: green accepts commands, red never will, yellow is on its way. */
export function stateCell(state: SandboxState, colors: Colors): Cell {
  switch (state) {
    case "ready":
      return { text: state, paint: colors.green };
    case "lost":
    case "failed":
      return { text: state, paint: colors.red };
    case "creating":
    case "recovering":
    case "destroying":
      return { text: state, paint: colors.yellow };
    default:
      return state; // a newer daemon may know more
  }
}

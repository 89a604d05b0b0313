import type { Context } from "./context.js";
import { printableLine } from "./terminal-text.js";

const barWidth = 24;
const redrawMs = 100;

/** What a long verb has got done: a bar on a terminal, a line for each step elsewhere. Text may come from anybody. */
export class Progress {
  readonly #context: Pick<Context, "stderr" | "isTerminal" | "now">;
  #drawnMs = 0;
  #step = "";

  constructor(context: Pick<Context, "stderr" | "isTerminal" | "now">) {
    this.#context = context;
  }

  /** `fraction` is null where nobody knows. */
  show(step: string, fraction: number | null): void {
    const text = printableLine(step);
    const isNew = text !== this.#step;
    this.#step = text;
    if (!this.#context.isTerminal) {
      if (isNew && text !== "") this.#context.stderr.write(`${text} …\n`);
      return;
    }
    const now = this.#context.now().getTime();
    if (!isNew && now - this.#drawnMs < redrawMs) return;
    this.#drawnMs = now;
    this.#context.stderr.write(`\r\u001b[2K${fraction === null ? "" : `${renderBar(fraction)} `}${text}`);
  }

  /** Takes the bar away. */
  end(): void {
    if (this.#context.isTerminal && this.#step !== "") this.#context.stderr.write("\r\u001b[2K");
    this.#step = "";
  }
}

/** `[######------] 50 %` */
function renderBar(fraction: number): string {
  const part = Math.min(1, Math.max(0, fraction));
  const full = Math.round(part * barWidth);
  return `[${"#".repeat(full)}${"-".repeat(barWidth - full)}] ${Math.floor(part * 100)} %`;
}

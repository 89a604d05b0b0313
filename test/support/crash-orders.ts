/** What a squashd under test is told, as JSON in `orders.json` of its folder; read again whenever an operation begins. */
export interface Orders {
  /** whether the steps of all operations are written down, to `steps.jsonl` */
  readonly record?: boolean;
  /** by operation: the place at which it stops for good */
  readonly stop?: Readonly<Record<string, string>>;
  /** the requests on which sq-host dies, once all of these operations are there */
  readonly host?: { readonly fate: Fate; readonly at: Readonly<Record<string, string>> };
}

/** `unread`: sq-host dies with the requests unread. `unanswered`: it has done them, and its answers are lost. */
export type Fate = "unread" | "unanswered";

/** A line of `steps.jsonl`. */
export interface Step {
  /** such as `Sandboxes.create a` */
  readonly operation: string;
  /** such as `up cell: sq-host cellMake done #0`; the number tells those of one name apart */
  readonly place: string;
  /** whether something has changed outside of squashd's memory since the place before */
  readonly isChange: boolean;
}

/** Below the directory that holds squashd's run directory. */
export const crashFolder = "crash-points";

/** In that directory: how many pieces of work are under way in squashd, its start and what is done in the background among them. */
export const workFile = "work";

import type { Trial } from "./crash-trials.js";
import { patience } from "./patience.js";

type Subject = Pick<Trial, "operation" | "prepare">;

/** A trial and a place in its operation. */
export interface Cut<T extends Subject = Trial> {
  readonly trial: T;
  readonly place: string;
  /** for people */
  readonly name: string;
}

/** A round that has been, in which operations were begun and something was killed. */
export interface Round<T extends Subject> {
  /** whether an operation came to its place */
  wasReached(cut: Cut<T>): boolean;
  /** Looks at what is left; fails where that is neither as before nor as after. */
  check(cut: Cut<T>): Promise<void>;
}

export interface Verdict {
  /** what was wrong, one for each operation at most */
  readonly failed: readonly string[];
  readonly rounds: number;
  /** places to which no try has come */
  readonly unreached: readonly string[];
  /** whether there are more of those than may be: one of fifty, or one */
  readonly isTooMany: boolean;
  /** places that were tried */
  readonly tried: number;
}

const mostTries = 3;
/** of several at once, of which one may wait for another one that has been stopped; and of one alone */
const waitMs = { together: 5_000 * patience, alone: 20_000 * patience };
/** what is done to these is done by one operation at a time, so that only one of them can be stopped there */
const oneAtATime = "verified.json";

interface Limits {
  /** after which no further round is begun, unless for what one has not reached */
  readonly seconds: number;
}

/**
 * Goes through places, those of different operations together. One that is not reached so, as its operation waits for another one that was
 * stopped, is tried again alone. Whether it was reached or not, what is left is looked at. What has failed once has no state to go on from.
 */
export async function goThrough<T extends Subject>(
  cuts: readonly Cut<T>[],
  limits: Limits,
  run: (now: readonly Cut<T>[], waitMs: number) => Promise<Round<T>>,
): Promise<Verdict> {
  const failed = new Map<T, string>();
  const tries = new Map<Cut<T>, number>();
  const unreached: string[] = [];
  const end = performance.now() + limits.seconds * 1000;
  let rounds = 0;
  let left = [...cuts];
  for (; left.length > 0; rounds++) {
    const now = chooseRound(left, tries);
    left = left.filter((cut) => !now.includes(cut));
    for (const { trial } of now) await trial.prepare();
    const round = await run(now, now.length > 1 ? waitMs.together : waitMs.alone);
    for (const cut of now) {
      const { trial, name } = cut;
      const tried = (tries.get(cut) ?? 0) + 1;
      tries.set(cut, tried);
      if (!round.wasReached(cut)) {
        if (tried < mostTries) left.push(cut);
        else unreached.push(`${trial.operation}, ${name}`);
      }
      await round
        .check(cut)
        .catch((error: unknown) => failed.set(trial, `${trial.operation}, ${name}: ${String(error)}`));
    }
    const isOver = performance.now() > end;
    left = left.filter((cut) => !failed.has(cut.trial) && (!isOver || tries.has(cut)));
  }
  return {
    failed: [...failed.values()],
    rounds,
    unreached,
    isTooMany: unreached.length > Math.max(1, Math.floor(tries.size / 50)),
    tried: tries.size,
  };
}

/** The next place of each operation; where all have been tried, one alone. */
function chooseRound<T extends Subject>(left: readonly Cut<T>[], tries: ReadonlyMap<Cut<T>, number>): Cut<T>[] {
  const chosen = new Map<T, Cut<T>>();
  for (const cut of left.filter((one) => !tries.has(one))) {
    const isApart = ({ place }: Cut<T>): boolean => !place.includes(oneAtATime) || !cut.place.includes(oneAtATime);
    if (!chosen.has(cut.trial) && [...chosen.values()].every((other) => isApart(other))) chosen.set(cut.trial, cut);
  }
  return chosen.size > 0 ? [...chosen.values()] : left.slice(0, 1);
}

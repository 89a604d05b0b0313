/**
 * Runs work for what comes, at most `limit` at a time. What fails ends all: the others are waited for, and the first failure is thrown. `tasks`
 * is not asked for more than can be begun.
 */
export async function inParallel<T>(
  tasks: AsyncIterable<T> | Iterable<T>,
  limit: number,
  work: (task: T) => Promise<void>,
): Promise<void> {
  const running = new Set<Promise<void>>();
  let failure: { readonly error: unknown } | null = null;
  const begin = (task: T): void => {
    const one: Promise<void> = work(task)
      .catch((error: unknown) => void (failure ??= { error }))
      .finally(() => running.delete(one));
    running.add(one);
  };
  const failed = (): { readonly error: unknown } | null => failure;
  try {
    for await (const task of tasks) {
      if (failed() !== null) break;
      begin(task);
      if (running.size >= limit) await Promise.race(running);
    }
  } finally {
    await Promise.all(running);
  }
  const first = failed();
  if (first !== null) throw first.error;
}

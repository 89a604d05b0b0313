/** What a function must undo on every path out; with `await using`, latest first. Every task runs; the first failure is thrown. */
export class Cleanup implements AsyncDisposable {
  readonly #tasks: (() => Promise<unknown>)[] = [];

  defer(task: () => Promise<unknown>): void {
    this.#tasks.push(task);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const errors: unknown[] = [];
    for (const task of this.#tasks.splice(0).toReversed()) {
      try {
        await task();
      } catch (error) {
        errors.push(error);
      }
    }
    if (errors.length > 0) throw errors[0];
  }
}

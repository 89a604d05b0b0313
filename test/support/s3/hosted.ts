import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { patience } from "../patience.js";
import { repositoryRoot } from "../root.js";

/** What a process of this kind can be asked, by names. What is passed is JSON. */
export type Calls = Readonly<Record<string, (...args: never[]) => unknown>>;

/** The command line that runs a program elsewhere, as with `TestNetns.enter`. */
export type Enter = (program: string, args: readonly string[]) => [string, string[]];

interface Question {
  readonly id: number;
  readonly name: string;
  readonly args: readonly unknown[];
}

interface Reply {
  readonly id: number;
  readonly value?: unknown;
  readonly error?: string;
}

interface Waiting {
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: Error) => void;
}

const readyId = 0;
const startTimeoutMs = 30_000 * patience;

/** A server of the tests in a process of its own, so that it has a thread for itself and may be killed. It ends with its parent. */
export class Hosted<Answers extends Calls> implements AsyncDisposable {
  readonly #child: ChildProcess;
  readonly #waiting = new Map<number, Waiting>();
  #lastId = readyId;

  private constructor(child: ChildProcess) {
    this.#child = child;
    child.on("message", ({ id, value, error }: Reply) => {
      const waiting = this.#waiting.get(id);
      this.#waiting.delete(id);
      if (error === undefined) waiting?.resolve(value);
      else waiting?.reject(new Error(error));
    });
    child.on("exit", (status, signal) => {
      const error = new Error(`the process ended with ${signal ?? `status ${status}`}`);
      for (const { reject } of this.#waiting.values()) reject(error);
      this.#waiting.clear();
    });
  }

  /** `script` is the compiled one, below test/support. Returns it with what `host` there was told by `start`. */
  static async start<Answers extends Calls, Ready>(
    script: string,
    options: unknown,
    enter: Enter = (program, args) => [program, [...args]],
  ): Promise<{ hosted: Hosted<Answers>; ready: Ready }> {
    const file = join(repositoryRoot, "build/test/test/support", script);
    const [program, args] = enter(process.execPath, [file, JSON.stringify(options)]);
    const child = spawn(program, args, { stdio: ["ignore", "inherit", "inherit", "ipc"] });
    const hosted = new Hosted<Answers>(child);
    const timer = setTimeout(() => child.kill("SIGKILL"), startTimeoutMs);
    try {
      return { hosted, ready: (await hosted.#answer(readyId)) as Ready };
    } finally {
      clearTimeout(timer);
    }
  }

  get pid(): number {
    const { pid } = this.#child;
    if (pid === undefined) throw new Error("the process has not started");
    return pid;
  }

  /** Throws what it throws there. */
  async call<Name extends keyof Answers & string>(
    name: Name,
    ...args: Parameters<Answers[Name]>
  ): Promise<Awaited<ReturnType<Answers[Name]>>> {
    const id = ++this.#lastId;
    const answer = this.#answer(id);
    this.#child.send({ id, name, args } satisfies Question, (error) => {
      if (error !== null) this.#waiting.get(id)?.reject(error);
    });
    return (await answer) as Awaited<ReturnType<Answers[Name]>>;
  }

  #answer(id: number): Promise<unknown> {
    if (this.#isGone) return Promise.reject(new Error("the process has ended"));
    return new Promise((resolve, reject) => this.#waiting.set(id, { resolve, reject }));
  }

  get #isGone(): boolean {
    return this.#child.exitCode !== null || this.#child.signalCode !== null;
  }

  /** Ends it at once, and waits until it is gone. Idempotent. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#isGone) return;
    const gone = once(this.#child, "exit");
    this.#child.kill("SIGKILL");
    await gone;
  }
}

/** The other side: starts what the parent has asked for by its options, tells it when that is ready, and answers from then on. */
export function host<Options, Ready>(
  start: (options: Options) => Promise<{ readonly ready: Ready; readonly calls: Calls }>,
): void {
  const reply = (message: Reply): void => void process.send?.(message);
  const serve = async (): Promise<void> => {
    const { ready, calls } = await start(JSON.parse(process.argv[2] ?? "{}") as Options);
    process.on("message", ({ id, name, args }: Question) => {
      Promise.resolve()
        .then(() => calls[name]?.(...(args as never[])))
        .then(
          (value) => reply({ id, value }),
          (error: unknown) => reply({ id, error: String(error) }),
        );
    });
    reply({ id: readyId, value: ready });
  };
  process.on("disconnect", () => process.exit());
  serve().catch((error: unknown) => {
    console.error(error);
    process.exit(1);
  });
}

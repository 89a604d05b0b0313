import { Channel, type UpstreamAnswer } from "./channel.js";
import type { AddressType, RecordType } from "./record-types.js";

export interface UpstreamLimits {
  /** questions asked at once */
  readonly asking: number;
  /** questions that wait for their turn */
  readonly waiting: number;
  /** for a question, its waiting included */
  readonly deadlineMs: number;
}

export const upstreamLimits: UpstreamLimits = { asking: 256, waiting: 1024, deadlineMs: 5000 };

interface Question {
  readonly name: string;
  readonly type: AddressType | RecordType;
  readonly answer: (answer: UpstreamAnswer) => void;
  channel: Channel | undefined;
}

const failed: UpstreamAnswer = { outcome: { error: "SERVFAIL" }, ttlS: null };
/** for what is no fault of upstream's, hence may be asked again at once */
const notAsked: UpstreamAnswer = { outcome: { error: "SERVFAIL" }, ttlS: 0 };

/** Asks one set of servers, a bounded number of questions at once. */
export class Upstream {
  readonly #servers: readonly string[];
  readonly #limits: UpstreamLimits;
  readonly #waiting = new Set<Question>();
  readonly #idle: Channel[] = [];
  #asking = 0;

  /** `servers` as for `dns.setServers`. */
  constructor(servers: readonly string[], limits: UpstreamLimits) {
    this.#servers = servers;
    this.#limits = limits;
  }

  /** Never throws. */
  ask(name: string, type: AddressType | RecordType): Promise<UpstreamAnswer> {
    if (this.#servers.length === 0 || this.#waiting.size >= this.#limits.waiting) return Promise.resolve(notAsked);
    return new Promise((resolve) => {
      const answer = (given: UpstreamAnswer): void => {
        clearTimeout(timer);
        resolve(given);
      };
      const question: Question = { name, type, answer, channel: undefined };
      const timer = setTimeout(() => this.#expire(question), this.#limits.deadlineMs);
      this.#waiting.add(question);
      this.#next();
    });
  }

  #next(): void {
    for (const question of this.#waiting) {
      if (this.#asking >= this.#limits.asking) return;
      this.#waiting.delete(question);
      void this.#start(question);
    }
  }

  async #start(question: Question): Promise<void> {
    this.#asking += 1;
    const channel = this.#idle.pop() ?? new Channel(this.#servers);
    question.channel = channel;
    question.answer(await channel.ask(question.name, question.type));
    this.#idle.push(channel);
    this.#asking -= 1;
    this.#next();
  }

  #expire(question: Question): void {
    if (question.channel !== undefined) {
      question.channel.cancel();
      return;
    }
    this.#waiting.delete(question);
    question.answer(failed);
  }
}

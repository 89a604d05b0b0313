import type { JobInfo } from "./protocol.js";

/** longest event that is kept while it comes */
const maxEventChars = 1_048_576;

/**
 * Reads the states of a job from server-sent events, each as it comes. What is no event of a job is passed over; a stream that breaks off is
 * one that ends.
 */
export async function* jobEvents(content: AsyncIterable<Uint8Array>): AsyncGenerator<JobInfo> {
  const decoder = new TextDecoder();
  let text = "";
  for await (const chunk of untilBroken(content)) {
    text += decoder.decode(chunk, { stream: true });
    if (text.length > maxEventChars) return;
    const events = text.split("\n\n");
    text = events.pop() ?? "";
    for (const event of events) {
      const job = jobIn(event);
      if (job !== null) yield job;
    }
  }
}

async function* untilBroken(content: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  try {
    yield* content;
  } catch {
    // whoever wants to know more asks again, and learns then whether the daemon is there
  }
}

function jobIn(event: string): JobInfo | null {
  const data = /^data: (.*)$/m.exec(event)?.[1];
  try {
    const value: unknown = data === undefined ? null : JSON.parse(data);
    return typeof value === "object" && value !== null && "state" in value ? (value as JobInfo) : null;
  } catch {
    return null; // the next event has all of the state again
  }
}

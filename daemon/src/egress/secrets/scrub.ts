import type { Transform } from "node:stream";
import { Chain } from "./chain.js";
import { accepts, codingsOf, decodingStreams, undecodable, type Growth } from "./content-coding.js";
import { fieldValues, withField } from "./fields.js";
import { Needle, Replacer, replaceAll, type Pattern } from "./replacer.js";
import { ReplaceStream } from "./replace-stream.js";
import type { BasicPair } from "./request-fields.js";
import { UnreadableContent } from "./secret-refusal.js";
import type { Fields, ResponseScrub, ScrubbedAnswer } from "./substitution.js";
import { WatchStream } from "./watch-stream.js";
import { writingsOf } from "./writings.js";

/** A value to be kept out, and what comes in its place. */
export interface Kept {
  readonly secret: string;
  readonly value: string;
  readonly placeholder: string;
}

export interface ScrubPattern extends Pattern {
  readonly put: Buffer;
  readonly secret: string;
}

/** What to look for in answers. Of two secrets with one value the first gives the placeholder. */
export function scrubPatterns(kept: readonly Kept[]): ScrubPattern[] {
  const patterns = new Map<string, ScrubPattern>();
  for (const { secret, value, placeholder } of kept) {
    for (const { find, put } of writingsOf(value, placeholder)) {
      const key = find.toString("latin1");
      if (!patterns.has(key)) patterns.set(key, { needle: new Needle(find), put, secret });
    }
  }
  return [...patterns.values()];
}

/** With the credentials that were sent in this request, which servers tell in the form in which they came. */
export function withBasics(patterns: readonly ScrubPattern[], basics: readonly BasicPair[]): readonly ScrubPattern[] {
  if (basics.length === 0) return patterns;
  return [
    ...patterns,
    ...basics.map(({ sent, real }) => ({ needle: new Needle(Buffer.from(real)), put: Buffer.from(sent), secret: "" })),
  ];
}

export class Scrub implements ResponseScrub {
  readonly #patterns: readonly ScrubPattern[];
  readonly #acceptEncoding: string | null;
  readonly #growth: Growth;

  /** @param acceptEncoding what the client said */
  constructor(patterns: readonly ScrubPattern[], acceptEncoding: string | null, growth: Growth) {
    this.#patterns = patterns;
    this.#acceptEncoding = acceptEncoding;
    this.#growth = growth;
  }

  head(status: number, headers: readonly (readonly [string, string])[], hasBody: boolean): ScrubbedAnswer {
    const fields = this.trailers(headers);
    if (status === 101 && fieldValues(headers, "sec-websocket-extensions").join("").trim() !== "") {
      throw new UnreadableContent("server", "a WebSocket with an extension that nobody asked for");
    }
    if (!hasBody || this.#patterns.length === 0) return { headers: fields, body: null };
    const codings = codingsOf(fieldValues(headers, "content-encoding"));
    if (codings === null) throw new UnreadableContent("server", "an answer in a coding that is not known");
    if (codings.length === 0) {
      const stays = this.#patterns.every(({ needle, put }) => needle.bytes.length === put.length);
      const body = new Replacer(this.#patterns);
      return { headers: stays ? fields : withField(fields, "content-length", null), body };
    }
    if (status === 206) throw new UnreadableContent("server", "a part of an answer that is compressed");
    const decoders = decodingStreams(codings, "server", this.#growth);
    if (!accepts(this.#acceptEncoding, codings)) {
      // a client that did not ask for it keeps the file as it came, so it must not be another one
      // and what a decoder leaves out after its end is looked at as well
      const streams = [this.#watch(), ...decoders, this.#watch()];
      return { headers: fields, body: new WatchStream(streams, undecodable("server")) };
    }
    const plain = withField(withField(fields, "content-encoding", null), "content-length", null);
    const replace = new ReplaceStream(new Replacer(this.#patterns));
    return { headers: plain, body: new Chain([...decoders, replace], undecodable("server")) };
  }

  text(statusText: string): string {
    return this.#scrubbed(statusText);
  }

  trailers(fields: readonly (readonly [string, string])[]): Fields {
    return fields.map(([name, value]) => [name, this.#scrubbed(value)]);
  }

  #scrubbed(text: string): string {
    const bytes = Buffer.from(text, "latin1");
    if (!this.#patterns.some(({ needle }) => bytes.includes(needle.bytes))) return text;
    return replaceAll(bytes, this.#patterns).toString("latin1");
  }

  #watch(): Transform {
    const refuse = (): never => {
      throw new UnreadableContent(
        "server",
        "a compressed answer that tells the value of a secret, to a client that takes none",
      );
    };
    return new ReplaceStream(new Replacer(this.#patterns.map(({ needle }) => ({ needle, put: null, found: refuse }))));
  }
}

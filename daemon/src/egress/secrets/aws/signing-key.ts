import { createHash, createHmac } from "node:crypto";

/** For what a signature holds. */
export interface Scope {
  /** `YYYYMMDD` */
  readonly date: string;
  readonly region: string;
  readonly service: string;
}

export const emptyHash = sha256("");

/** Signs in the name of one key, for one scope and time. Source: AWS, "Create a signed AWS API request", steps 2 to 4 */
export class SigningKey {
  readonly #key: Buffer;
  readonly #dateTime: string;
  readonly #scope: string;

  /** @param dateTime `YYYYMMDDTHHMMSSZ` */
  constructor(secretAccessKey: string, scope: Scope, dateTime: string) {
    const parts = [scope.date, scope.region, scope.service, "aws4_request"];
    this.#key = parts.reduce<Buffer>((key, part) => hmac(key, part), Buffer.from(`AWS4${secretAccessKey}`));
    this.#dateTime = dateTime;
    this.#scope = parts.join("/");
  }

  /** @param lines what comes after the algorithm, the time and the scope */
  sign(algorithm: string, lines: readonly string[]): string {
    return hmac(this.#key, [algorithm, this.#dateTime, this.#scope, ...lines].join("\n")).toString("hex");
  }
}

/** In hex. A text is bytes, one for each character. */
export function sha256(data: string | Buffer): string {
  return createHash("sha256")
    .update(typeof data === "string" ? Buffer.from(data, "latin1") : data)
    .digest("hex");
}

function hmac(key: Buffer, text: string): Buffer {
  return createHmac("sha256", key).update(text, "latin1").digest();
}

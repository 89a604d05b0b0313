import { SquashError } from "@squash/sdk/errors";

type Shape = "a text" | "true or false" | "a list of texts" | "an object";

const isShape: Readonly<Record<Shape, (value: unknown) => boolean>> = {
  "a text": (value) => typeof value === "string",
  "true or false": (value) => typeof value === "boolean",
  "a list of texts": (value) => Array.isArray(value) && value.every((each) => typeof each === "string"),
  "an object": (value) => typeof value === "object" && value !== null && !Array.isArray(value),
};

/**
 * The fields of one secret, or of an object in it, as somebody wrote them. Every complaint names the secret and the field, and shows nothing
 * of what the field holds, since that may be a value in the wrong place.
 */
export class SecretFields {
  readonly secret: string;
  readonly #path: string;
  readonly #object: Readonly<Record<string, unknown>>;
  readonly #asked = new Set<string>();

  constructor(secret: string, value: unknown, path = "") {
    this.secret = secret;
    this.#path = path;
    if (!isShape["an object"](value)) throw this.refusal(null, "must be an object");
    this.#object = value as Readonly<Record<string, unknown>>;
  }

  text(field: string): string | null {
    return this.#read(field, "a text") as string | null;
  }

  requiredText(field: string): string {
    return this.text(field) ?? this.fail(field, "is required");
  }

  flag(field: string): boolean | null {
    return this.#read(field, "true or false") as boolean | null;
  }

  texts(field: string): readonly string[] | null {
    return this.#read(field, "a list of texts") as readonly string[] | null;
  }

  object(field: string): SecretFields | null {
    const found = this.#read(field, "an object");
    return found === null ? null : new SecretFields(this.secret, found, `${this.#path}${field}.`);
  }

  /** To be called when all fields were read: a misspelt restriction must be an error, not a missing one. */
  end(): void {
    const stray = Object.keys(this.#object).find((field) => !this.#asked.has(field));
    // what is no plain word might be a value that lost its name
    if (stray !== undefined)
      this.fail(/^[a-z][a-z0-9_]{0,31}$/.test(stray) ? stray : "a field", "is not one of a secret");
  }

  fail(field: string, problem: string): never {
    throw this.refusal(field, problem);
  }

  refusal(field: string | null, problem: string): SquashError {
    const path = field === null ? this.#path.slice(0, -1) : this.#path + field;
    return secretRefusal(this.secret, path, problem);
  }

  /** null where it is absent or null. */
  #read(field: string, shape: Shape): unknown {
    this.#asked.add(field);
    const value = Object.hasOwn(this.#object, field) ? (this.#object[field] ?? null) : null;
    if (value !== null && !isShape[shape](value)) this.fail(field, `must be ${shape}`);
    return value;
  }
}

/** `invalid_request` about one field of one secret; "" for the secret as a whole. */
export function secretRefusal(secret: string, field: string, problem: string): SquashError {
  const subject = field === "" ? "it" : field;
  return new SquashError("invalid_request", `Cannot use secret "${secret}": ${subject} ${problem}`, {
    details: { secret, ...(field !== "" && { field }) },
  });
}

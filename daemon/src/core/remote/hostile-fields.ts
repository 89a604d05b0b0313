import { invalidObject } from "./invalid-object.js";

/** Throws `s3_object_invalid`, which says what of the object is not as it must be. */
export function refuseObject(key: string, problem: string, cause?: unknown): never {
  throw invalidObject(key, `it ${problem}`, cause);
}

/** An object of JSON from outside, read field by field. Nothing in it is believed to be there, or of any type. Throws `s3_object_invalid`. */
export class HostileFields {
  readonly #key: string;
  readonly #where: string;
  readonly #fields: Readonly<Record<string, unknown>>;

  private constructor(key: string, where: string, fields: Readonly<Record<string, unknown>>) {
    this.#key = key;
    this.#where = where;
    this.#fields = fields;
  }

  /** `key` is the object's in the store, for messages. */
  static of(key: string, text: string): HostileFields {
    let value: unknown;
    try {
      value = JSON.parse(text);
    } catch (cause) {
      refuseObject(key, "is not JSON", cause);
    }
    return HostileFields.from(key, value);
  }

  /** The same of what was read from JSON already. */
  static from(key: string, value: unknown): HostileFields {
    return HostileFields.#from(key, "", value);
  }

  static #from(key: string, where: string, value: unknown): HostileFields {
    if (typeof value !== "object" || value === null || Array.isArray(value))
      refuseObject(key, where === "" ? "is not an object of JSON" : `has a ${where} that is not an object`);
    return new HostileFields(key, where, value as Record<string, unknown>);
  }

  has(name: string): boolean {
    return Object.hasOwn(this.#fields, name);
  }

  isText(name: string): boolean {
    return typeof this.#get(name) === "string";
  }

  text(name: string, options: { readonly max: number; readonly pattern?: RegExp }): string {
    const value = this.#get(name);
    if (typeof value !== "string" || value.length > options.max || value.includes("\0"))
      this.refuse(name, `is not a text of at most ${options.max} characters`);
    if (options.pattern !== undefined && !options.pattern.test(value)) this.refuse(name, "is not a name of its kind");
    return value;
  }

  /** Within the bounds, both included. */
  number(name: string, min: number, max: number): number {
    const value = this.#get(name);
    if (typeof value !== "number" || !(value >= min && value <= max))
      this.refuse(name, `is not a number from ${min} to ${max}`);
    return value;
  }

  integer(name: string, min: number, max: number): number {
    const value = this.number(name, min, max);
    if (!Number.isInteger(value)) this.refuse(name, "is not a whole number");
    return value;
  }

  flag(name: string): boolean {
    const value = this.#get(name);
    if (typeof value !== "boolean") this.refuse(name, "is neither true nor false");
    return value;
  }

  /** As `Date.toISOString` writes it. */
  time(name: string): string {
    const value = this.text(name, { max: 32 });
    const ms = Date.parse(value);
    if (!Number.isFinite(ms) || new Date(ms).toISOString() !== value) this.refuse(name, "is not a time");
    return value;
  }

  /** Different ones. */
  texts(name: string, options: { readonly count: number; readonly max: number; readonly pattern?: RegExp }): string[] {
    const value = this.#get(name);
    if (!Array.isArray(value) || value.length > options.count)
      this.refuse(name, `is not a list of at most ${options.count}`);
    const texts = (value as unknown[]).map((text) => {
      if (typeof text !== "string" || text.length > options.max || text.includes("\0"))
        this.refuse(name, "has what is no text");
      if (options.pattern !== undefined && !options.pattern.test(text))
        this.refuse(name, "has what is not a name of its kind");
      return text;
    });
    if (new Set(texts).size !== texts.length) this.refuse(name, "has one twice");
    return texts;
  }

  /** As few or as many objects as is said, both included. */
  objects(name: string, min: number, max: number): HostileFields[] {
    const value = this.#get(name);
    if (!Array.isArray(value) || value.length < min || value.length > max)
      this.refuse(name, `is not a list of ${min} to ${max}`);
    return (value as unknown[]).map((one, at) => HostileFields.#from(this.#key, `${this.#path(name)}[${at}]`, one));
  }

  /** What is there, which may be anything. */
  anything(name: string): unknown {
    return this.#get(name);
  }

  inside(name: string): HostileFields {
    return HostileFields.#from(this.#key, this.#path(name), this.#get(name));
  }

  /** What `read` makes of a field; null where the field is null. */
  nullable<T>(name: string, read: (name: string) => T): T | null {
    return this.#get(name) === null ? null : read(name);
  }

  refuse(name: string, problem: string, cause?: unknown): never {
    refuseObject(this.#key, `has a ${this.#path(name)} that ${problem}`, cause);
  }

  #get(name: string): unknown {
    if (!this.has(name)) refuseObject(this.#key, `has no ${this.#path(name)}`);
    return this.#fields[name];
  }

  #path(name: string): string {
    return this.#where === "" ? name : `${this.#where}.${name}`;
  }
}

import { merged, type Directory } from "./nodes.js";
import { Overlay, type UpperKind } from "./overlay.js";

/** a stack of so many snapshots is captured as one image */
const deepestStack = 16;

/** What a sandbox's files are made of, without those that it has written since. */
export interface Stack {
  /** names of those that have files of the model */
  readonly modules: readonly string[];
  /** topmost first */
  readonly images: readonly Directory[];
}

interface Labelled extends Stack {
  readonly label: string;
  readonly parent: string | null;
}

export interface ReplicaOptions {
  /** what is in modules, by name */
  readonly contents: ReadonlyMap<string, Directory>;
  readonly upperKind: UpperKind;
}

/** One sandbox of the model. */
export class Replica {
  readonly id: string;
  overlay: Overlay;
  readonly #contents: ReadonlyMap<string, Directory>;
  readonly #upperKind: UpperKind;
  #stack: Stack;
  #snapshots: Labelled[] = [];
  #head: string | null = null;

  constructor(id: string, stack: Stack, options: ReplicaOptions) {
    this.id = id;
    this.#contents = options.contents;
    this.#upperKind = options.upperKind;
    this.#stack = stack;
    this.overlay = this.#stacked();
  }

  get modules(): readonly string[] {
    return this.#stack.modules;
  }

  get labels(): readonly string[] {
    return this.#snapshots.map(({ label }) => label);
  }

  /** As the API tells it: label, and what it was taken after. */
  get history(): readonly (readonly [string, string | null])[] {
    return this.#snapshots.map(({ label, parent }) => [label, parent]);
  }

  /** The present files, or a snapshot's, for a fork. */
  moment(label?: string): Stack {
    if (label !== undefined) return this.#find(label);
    const { modules, images } = this.#stack;
    const isDeep = images.length >= deepestStack;
    const image = merged(isDeep ? [this.overlay.upper, ...images] : [this.overlay.upper]);
    return { modules, images: isDeep ? [image] : [image, ...images] };
  }

  snapshot(label: string): void {
    this.#snapshots.push({ label, parent: this.#head, ...this.moment() });
    this.#head = label;
  }

  restore(label: string): void {
    const { modules, images } = this.#find(label);
    this.#stack = { modules, images };
    this.overlay = this.#stacked();
    this.#head = label;
  }

  forget(label: string): void {
    const { parent } = this.#find(label);
    this.#snapshots = this.#snapshots
      .filter((one) => one.label !== label)
      .map((one) => (one.parent === label ? { ...one, parent } : one));
    if (this.#head === label) this.#head = parent;
  }

  /** Adds the module, or takes it away. */
  toggle(module: string): void {
    const { modules, images } = this.#stack;
    const others = modules.filter((one) => one !== module);
    this.#stack = { images, modules: others.length < modules.length ? others : [...modules, module] };
    this.overlay = this.#stacked(this.overlay.upper);
  }

  #stacked(upper?: Directory): Overlay {
    return new Overlay(this.#lowers(), { upperKind: this.#upperKind, ...(upper === undefined ? {} : { upper }) });
  }

  #lowers(): Directory[] {
    // numbers in front of the names are of one length
    const modules = this.#stack.modules.toSorted().toReversed();
    const found = modules.flatMap((name) => this.#contents.get(name) ?? []);
    return [...this.#stack.images, ...found];
  }

  #find(label: string): Labelled {
    const found = this.#snapshots.find((one) => one.label === label);
    if (found === undefined) throw new Error(`the model has no snapshot "${label}"`);
    return found;
  }
}

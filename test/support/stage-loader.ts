interface Loaded {
  readonly format: string;
  readonly shortCircuit: boolean;
  readonly source: string;
}

/** What is put in the place of a module, by the end of its URL; `real` is that module. */
const replaced: Readonly<Record<string, string>> = {
  // stages are first handed to a function that crash-points-host.ts defines
  "/core/stages.js": `
    const watched = globalThis[Symbol.for("squash.watch-stages")];
    export const bringUp = (stages, ...rest) => real.bringUp(watched(stages), ...rest);
    export const takeDown = (stages, ...rest) => real.takeDown(watched(stages), ...rest);`,
  // what nobody uses is unmounted at once, so that an operation takes the same steps each time
  "/core/layers.js": `
    export class Layers extends real.Layers {
      constructor(kernel) { super(kernel, { lingerMs: 0 }); }
    }`,
  // the upkeep begins at once, since each operation waits until it has come to its end
  "/core/snapshot-upkeep.js": `
    export class SnapshotUpkeep extends real.SnapshotUpkeep {
      constructor(parts) { super(parts, { settleMs: 10 }); }
    }`,
};

/** A hook of Node's module loader, for a squashd under test. */
export function load<T>(url: string, context: T, next: (url: string, context: T) => Promise<Loaded>): Promise<Loaded> {
  const own = Object.entries(replaced).find(([end]) => url.endsWith(end))?.[1];
  if (own === undefined) return next(url, context);
  const real = JSON.stringify(`${url}?real`);
  const source = `import * as real from ${real};\nexport * from ${real};${own}`;
  return Promise.resolve({ format: "module", shortCircuit: true, source });
}

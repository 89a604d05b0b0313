interface Loaded {
  readonly format: string;
  readonly shortCircuit: boolean;
  readonly source: string;
}

/**
 * A hook of Node's module loader, for a squashd under test: whatever imports `core/stages.js` gets functions that first hand the stages to the
 * global function `squash.watch-stages`, which crash-points-host.ts defines.
 */
export function load<T>(url: string, context: T, next: (url: string, context: T) => Promise<Loaded>): Promise<Loaded> {
  if (!url.endsWith("/core/stages.js")) return next(url, context);
  const real = JSON.stringify(`${url}?real`);
  const source = `
    import * as real from ${real};
    export * from ${real};
    const watched = globalThis[Symbol.for("squash.watch-stages")];
    export const bringUp = (stages, ...rest) => real.bringUp(watched(stages), ...rest);
    export const takeDown = (stages, ...rest) => real.takeDown(watched(stages), ...rest);`;
  return Promise.resolve({ format: "module", shortCircuit: true, source });
}

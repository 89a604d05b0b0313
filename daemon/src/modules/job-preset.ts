import { randomBytes } from "node:crypto";
import { SquashError, isSquashError } from "@squash/sdk/errors";
import type { PresetJob } from "@squash/sdk/protocol";
import { pause } from "../core/pause.js";
import type { BaseOptions } from "./bases/base.js";
import { builds, type JobWorld, type Plan } from "./job-plan.js";
import { packSandbox, refuseBelow } from "./job-sandbox.js";
import type { ModuleManifest } from "./manifest.js";
import { check, findManager, install } from "./presets/install.js";
import { mirrorPolicy, readMachineMirrors } from "./presets/mirrors.js";
import { isPackageName } from "./presets/package-manager.js";
import { presetOf, type Preset } from "./presets/presets.js";

const lifetimeS = 2 * 60 * 60;
const memoryMb = 2048;
const destroyTries = 3;
/** the clock of files lags behind by up to a tick of the kernel's, 10 ms at most */
const fileClockLagMs = 20;

/** What tells sandboxes that builders made from those of people. */
/** of sandboxes that are gone when the job is that made them, and kept nowhere */
export const builderOwner = "squashd-builder";
const marks = { owner: builderOwner, task: "mkmod preset " } as const;

/** Packages of a distribution as a module. Throws `invalid_request`, `module_exists`, `module_not_found`. */
export async function planPreset(request: PresetJob, world: JobWorld): Promise<Plan> {
  const preset = presetOf(request.preset);
  const name = request.name ?? preset.module;
  if (name === null)
    throw new SquashError("invalid_request", `Cannot make preset "${request.preset}": it needs a name for its module`);
  const { packages = [] } = request;
  const odd = packages.find((each) => !isPackageName(each));
  if (odd !== undefined)
    throw new SquashError("invalid_request", `Cannot install ${JSON.stringify(odd)}: it is no name of a package`);
  if (packages.length === 0 && preset.apt.length === 0)
    throw new SquashError("invalid_request", `Cannot make preset "${request.preset}": it needs packages`);
  const bases = request.base === undefined ? await world.catalog.defaultLayers() : [request.base];
  for (const base of bases) await world.catalog.facts(base);
  refuseBelow(name, request.requires ?? bases);
  return builds({ ...request, name, builder: `mkmod preset ${request.preset}` }, world, (options) =>
    buildPreset({ preset, bases, request }, world, options),
  );
}

async function buildPreset(
  { preset, bases, request }: { preset: Preset; bases: readonly string[]; request: PresetJob },
  world: JobWorld,
  options: BaseOptions,
): Promise<ModuleManifest> {
  const { sandboxes } = world;
  const { progress, signal = new AbortController().signal } = options;
  const id = `builder-${randomBytes(6).toString("hex")}`;
  const context = { sandboxes, id, signal, progress };
  const settleSinceS = await nextSecond(signal);
  progress(`making a sandbox on ${bases.join(", ")}`);
  const about = { id, owner: marks.owner, task: `${marks.task}${request.preset}`, layers: [...bases] };
  const limits = { memory_mb: memoryMb, max_lifetime_s: lifetimeS, allow_net: ["none"], secrets: [] };
  await sandboxes.create({ ...about, ...limits }, signal);
  try {
    const { manager, urls } = await findManager(context);
    const machine = await readMachineMirrors();
    const allowed = request.allow_net ?? (await mirrorPolicy(urls, machine));
    progress(`allowing ${allowed.join(", ")}`);
    await sandboxes.setNetwork(id, { allow_net: allowed });
    const settings = manager.name === "apt" ? machine.settings : [];
    await install(manager, request.packages ?? preset[manager.name], { ...context, settings });
    await sandboxes.setNetwork(id, { allow_net: ["none"] });
    if (preset.check !== null && request.packages === undefined) await check(context, preset.check);
    const requires = request.requires ?? bases;
    return await packSandbox({ id, label: null, all: false, requires, settleSinceS }, world, options).catch(
      (cause: unknown) => {
        // its name and place are checked before; what is left is that there is nothing to pack
        if (!isSquashError(cause) || cause.code !== "invalid_request") throw cause;
        const hint = `${bases.join(", ")} has all that would be in it already`;
        throw new SquashError("build_failed", `Cannot make module "${options.name}": ${hint}`, { cause });
      },
    );
  } finally {
    await destroy(world, id);
  }
}

/**
 * Waits for the next second, and returns it, in seconds since 1970: images have whole ones, and a base may have been made in this one, whose
 * files are not the build's for that.
 */
async function nextSecond(signal: AbortSignal): Promise<number> {
  const second = Math.floor(Date.now() / 1000) + 1;
  await pause(second * 1000 + fileClockLagMs - Date.now(), signal);
  signal.throwIfAborted();
  return second;
}

/** It must go whatever happened. What cannot be destroyed now goes when its lifetime is over, or at the next start. */
async function destroy({ sandboxes }: JobWorld, id: string): Promise<void> {
  for (let tries = 1; ; tries++) {
    try {
      await sandboxes.destroy(id);
      return;
    } catch (error) {
      if (isSquashError(error) && error.code === "sandbox_not_found") return;
      if (tries === destroyTries) return;
    }
  }
}

/** Destroys sandboxes that builders of an earlier squashd have left. Returns their ids. */
export async function sweepBuilders(
  all: readonly { readonly id: string; readonly record: { readonly owner: string; readonly task: string } | null }[],
  destroyOne: (id: string) => Promise<void>,
): Promise<string[]> {
  const left = all.filter(
    ({ id, record }) =>
      id.startsWith("builder-") && record?.owner === marks.owner && record.task.startsWith(marks.task),
  );
  for (const { id } of left) await destroyOne(id);
  return left.map(({ id }) => id);
}

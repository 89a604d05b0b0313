import { SquashError } from "@squash/sdk/errors";
import type { PullJob, PushJob, RemoteJob } from "@squash/sdk/protocol";
import type { JobContext, JobPlan } from "../core/jobs.js";
import type { Sandboxes } from "../core/sandboxes.js";
import { isLabel, checkId } from "../core/validate.js";
import { checkModuleName } from "../modules/module-name.js";
import type { Renewed } from "../s3/blobs.js";
import { attempt } from "./attempt.js";
import type { BucketCare } from "./bucket-care.js";
import type { BucketParts } from "./bucket-parts.js";
import type { RemoteModules } from "./remote-modules.js";
import type { RemoteSnapshots } from "./remote-snapshots.js";
import type { Synced } from "./sync.js";

export interface RemoteJobParts {
  readonly sandboxes: Sandboxes;
  readonly bucket: BucketParts;
  readonly modules: RemoteModules;
  readonly snapshots: RemoteSnapshots;
  readonly care: BucketCare;
  readonly sync: (scope: "all" | { readonly sandbox: string }, context: JobContext) => Promise<Synced>;
  readonly push: {
    module: (name: string, renewed: Renewed | null, context: JobContext) => Promise<void>;
    snapshot: (id: string, label: string, renewed: Renewed | null, context: JobContext) => Promise<void>;
  };
  readonly forgetRemoved: (name: string) => Promise<void>;
}

const dayS = 86_400;

/** How a job of the bucket is done. Throws `invalid_request`, `sandbox_not_found`. */
export function planRemoteJob(job: RemoteJob, parts: RemoteJobParts): JobPlan {
  const plan = (module: string, run: (context: JobContext) => Promise<void>): JobPlan => ({
    kind: job.kind,
    module,
    run,
    made: () => [],
  });
  switch (job.kind) {
    case "push":
      check(job, parts);
      return plan(subjectOf(job), (context) => push(job, parts, context));
    case "pull":
      check(job, parts);
      return plan(subjectOf(job), (context) => pull(job, parts, context));
    case "sync": {
      const { sandbox } = job;
      if (sandbox !== undefined) parts.sandboxes.find(sandbox);
      return plan(sandbox ?? "all", async (context) => {
        const synced = await parts.sync(sandbox === undefined ? "all" : { sandbox }, context);
        for (const problem of synced.problems) context.progress(problem);
        context.progress(`${synced.pushed} sent, ${synced.pulled} fetched, ${synced.problems.length} left`);
        refuseProblems("compare all with", synced.problems);
      });
    }
    case "s3-verify":
      return plan("all", async (context) => {
        const problems = await parts.care.verify({ deep: job.deep ?? false }, context);
        for (const problem of problems) context.progress(problem);
        refuseProblems("trust", problems);
      });
    case "s3-gc":
      return plan("all", async (context) => {
        const dryRun = job.dry_run ?? false;
        const { objects, bytes } = await parts.care.collect({ graceS: job.grace_s ?? dayS, dryRun }, context);
        context.progress(`${objects} objects of ${bytes} bytes ${dryRun ? "would be" : "were"} removed`);
      });
  }
}

function subjectOf({ module, sandbox, label }: PushJob | PullJob): string {
  if (sandbox !== undefined) return label === undefined ? sandbox : `${sandbox}@${label}`;
  return module ?? "all";
}

function check(job: PushJob | PullJob, { sandboxes }: RemoteJobParts): void {
  const { kind, module, sandbox, label, replace = false } = job;
  if (module !== undefined && sandbox !== undefined) throw invalid("name a module or a sandbox, not both");
  if (label !== undefined && sandbox === undefined) throw invalid("a label is one of a sandbox: name that as well");
  if (kind === "push" && replace && module === undefined && sandbox === undefined)
    throw invalid("name a module or a sandbox that is to be replaced in the bucket");
  if (label !== undefined && !isLabel(label)) throw invalid("that cannot be a label");
  if (module !== undefined) checkModuleName(module);
  if (sandbox === undefined) return;
  checkId(sandbox);
  sandboxes.find(sandbox);
}

async function push(job: PushJob, parts: RemoteJobParts, context: JobContext): Promise<void> {
  const { module, sandbox, label, replace = false } = job;
  // one for all of them: what several have in common is sent anew once
  const renewed: Renewed | null = replace ? new Set() : null;
  if (module !== undefined) return parts.push.module(module, renewed, context);
  if (sandbox !== undefined && label !== undefined) return parts.push.snapshot(sandbox, label, renewed, context);
  if (sandbox !== undefined) {
    const problems: string[] = [];
    for (const { label: one } of [...parts.sandboxes.find(sandbox).snapshots])
      await attempt(problems, `snapshot ${sandbox}@${one}`, context, () =>
        parts.push.snapshot(sandbox, one, renewed, context),
      );
    return refuseProblems("send all to", problems);
  }
  const synced = await parts.sync("all", context);
  refuseProblems("send all to", synced.problems);
}

async function pull(job: PullJob, parts: RemoteJobParts, context: JobContext): Promise<void> {
  const { module, sandbox, label, replace = false } = job;
  const { bucket, modules, snapshots, forgetRemoved } = parts;
  const pullModule = async (name: string): Promise<void> => {
    await forgetRemoved(name);
    await modules.pull(name, { replace }, context);
  };
  if (module !== undefined) return pullModule(module);
  if (sandbox !== undefined && label !== undefined) return snapshots.pull(sandbox, label, context);
  const problems: string[] = [];
  if (sandbox !== undefined) {
    for (const one of await labelsOf(sandbox, bucket, context.signal))
      await attempt(problems, `snapshot ${sandbox}@${one}`, context, () => snapshots.pull(sandbox, one, context));
  } else {
    const there = await bucket.modules.list(context.signal);
    for (const [name, error] of there.problems) problems.push(`module ${name}: ${error.message}`);
    const names = new Set(there.modules.map(({ name }) => name));
    for await (const { name } of bucket.older.modules(context.signal)) names.add(name);
    for (const name of names)
      if (replace || modules.local(name) === null)
        await attempt(problems, `module ${name}`, context, () => pullModule(name));
  }
  refuseProblems("fetch all from", problems);
}

/** Labels of all snapshots of a sandbox, those of older daemons included. */
async function labelsOf(sandbox: string, { snapshots, older }: BucketParts, signal: AbortSignal): Promise<Set<string>> {
  const labels = new Set(await snapshots.labels(sandbox, signal));
  for await (const { label } of older.snapshots(signal, sandbox)) labels.add(label);
  return labels;
}

/** What could be done has been; the job says that not all was. */
function refuseProblems(what: string, problems: readonly string[]): void {
  const [first] = problems;
  if (first === undefined) return;
  const more = problems.length === 1 ? "" : `, and ${problems.length - 1} more`;
  throw new SquashError("s3_failed", `Cannot ${what} the bucket: ${first}${more}`, { details: { problems } });
}

function invalid(what: string): SquashError {
  return new SquashError("invalid_request", `Cannot start the job: ${what}`);
}

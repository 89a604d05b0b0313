import type {
  PullJob,
  PushJob,
  QueueEntryInfo,
  RemoteJob,
  RemoteModuleInfo,
  RemoteSnapshotInfo,
  RemoteStatus,
} from "@squash/sdk";
import type { Command } from "commander";

import { action, printAnswer, withJson } from "../action.js";
import type { Colors } from "../colors.js";
import type { Context } from "../context.js";
import { UsageError } from "../exit-status.js";
import { followJob } from "../follow-job.js";
import { formatAge, formatBytes } from "../format.js";
import { wholeNumber } from "../options.js";
import { renderFacts, renderTable, type Cell } from "../table.js";

const transferHelp = `
Examples:
  sq push                              all that the bucket does not have
  sq push module 100-tools --replace   also where the bucket has another one, or a damaged one
  sq push snapshots box                all snapshots of that sandbox
  sq push snapshots box clean
  sq pull module 100-tools
  sq pull snapshots box
`;

const replaceHelp = {
  push: "send all of it anew, in the place of another module or of what is damaged",
  pull: "another module of that name may be replaced",
};

const help = `
Examples:
  sq s3                                which bucket, and how far it has what is here
  sq s3 ls                             modules in the bucket
  sq s3 ls box                         snapshots of a sandbox in the bucket
  sq s3 queue                          what is still to be sent
  sq s3 verify --deep                  reads every byte that the bucket has
  sq s3 gc --dry-run                   what nothing names
  sq s3 rm module 100-tools
  sq s3 rm snapshot box clean
  sq s3 rm sandbox box                 all of it; in ephemeral mode it is gone for good then
`;

/** `sq push`, `sq pull`, `sq sync`, `sq s3`: the bucket that modules and snapshots are kept in. */
export function addBucket(program: Command, context: Context): void {
  addTransfer(program, context, { kind: "push", description: "send modules and snapshots to the bucket" });
  addTransfer(program, context, { kind: "pull", description: "fetch modules and snapshots from the bucket" });

  const sync = program.command("sync").description("compare with the bucket; send and fetch what is missing");
  withJson(sync.argument("[id]", "only that sandbox's snapshots, both ways")).action(
    action(context, (self, id: string | undefined) =>
      run(context, self, { kind: "sync", ...(id !== undefined && { sandbox: id }) }),
    ),
  );

  const bucket = program
    .command("s3")
    .description("look after the bucket that modules and snapshots are kept in")
    .addHelpText("after", help);
  const { signal } = context;
  withJson(bucket).action(
    action(context, async (self) => {
      const value = await context.client().bucket({ signal });
      printAnswer(context, self, { value, render: (status) => renderStatus(status, context) });
    }),
  );
  withJson(bucket.command("ls").description("list modules, or snapshots of a sandbox, in the bucket"))
    .argument("[id]", "of a sandbox; * for all")
    .action(
      action(context, async (self, id: string | undefined) => {
        const client = context.client();
        if (id === undefined) {
          const value = await client.bucketModules({ signal });
          printAnswer(context, self, { value, render: (found) => renderModules(found, context.colors) });
          return;
        }
        const value = await client.bucketSnapshots(id === "*" ? undefined : id, { signal });
        printAnswer(context, self, { value, render: (found) => renderSnapshots(found, context) });
      }),
    );
  withJson(bucket.command("queue").description("show what is still to be done in the bucket")).action(
    action(context, async (self) => {
      const value = await context.client().bucketQueue({ signal });
      printAnswer(context, self, { value, render: (found) => renderQueue(found, context) });
    }),
  );
  withJson(bucket.command("verify").description("look whether all that the bucket should have is there"))
    .option("--deep", "read every byte")
    .action(
      action(context, (self) => {
        const { deep = false } = self.opts<{ deep?: true }>();
        return run(context, self, { kind: "s3-verify", deep });
      }),
    );
  withJson(bucket.command("gc").description("remove from the bucket what nothing names any more"))
    .option("-n, --dry-run", "only say how much")
    .option("--grace <seconds>", "what is younger stays (86400)", wholeNumber)
    .action(
      action(context, (self) => {
        const { dryRun = false, grace } = self.opts<{ dryRun?: true; grace?: number }>();
        return run(context, self, { kind: "s3-gc", dry_run: dryRun, ...(grace !== undefined && { grace_s: grace }) });
      }),
    );
  bucket
    .command("rm")
    .description("take a module, a sandbox or a snapshot out of the bucket; what is here stays")
    .argument("<kind>", "module, sandbox or snapshot")
    .argument("<name>", "of the module, or id of the sandbox")
    .argument("[label]", "of the snapshot")
    .action(
      action(context, async (_, kind: string, name: string, label: string | undefined) => {
        const client = context.client();
        if (kind === "module" && label === undefined) return client.removeBucketModule(name, { signal });
        if (kind === "sandbox" && label === undefined) return client.removeBucketSandbox(name, { signal });
        if (kind === "snapshot" && label !== undefined) return client.removeBucketSnapshot(name, label, { signal });
        throw new UsageError('say "module <name>", "sandbox <id>" or "snapshot <id> <label>"');
      }),
    );
}

function addTransfer(
  program: Command,
  context: Context,
  { kind, description }: { readonly kind: "push" | "pull"; readonly description: string },
): void {
  const transfer = program.command(kind).description(description).addHelpText("after", transferHelp);
  withJson(transfer)
    .argument("[what]", "module or snapshots; all modules, if absent")
    .argument("[name]", "of the module, or id of the sandbox")
    .argument("[label]", "of one snapshot")
    .option("--replace", replaceHelp[kind])
    .action(
      action(context, (self, what: string | undefined, name: string | undefined, label: string | undefined) => {
        const { replace = false } = self.opts<{ replace?: true }>();
        return run(context, self, { kind, ...subject(what, name, label), ...(replace && { replace }) });
      }),
    );
}

function subject(
  what: string | undefined,
  name: string | undefined,
  label: string | undefined,
): Omit<PushJob | PullJob, "kind"> {
  if (what === undefined || (what === "modules" && name === undefined)) return {};
  if (what === "module" && name !== undefined && label === undefined) return { module: name };
  if (what === "snapshots" && name !== undefined) return { sandbox: name, ...(label !== undefined && { label }) };
  throw new UsageError('say nothing, "module <name>", or "snapshots <id> [label]"');
}

async function run(context: Context, self: Command, job: RemoteJob): Promise<void> {
  const started = await context.client().startJob(job, { signal: context.signal });
  const last = await followJob(context, self, started);
  if (last.state === "done" && self.opts<{ json?: true }>().json !== true && last.step !== "")
    context.stdout.write(`${last.step}\n`);
}

function renderStatus(status: RemoteStatus, { colors, now }: Context): string {
  if (status.bucket === null) return "no bucket is configured: set SQUASH_S3_BUCKET for squashd\n";
  const { bucket, endpoint, prefix, encrypted, queued, last_sync: last, sync_error: error } = status;
  return renderFacts(
    [
      ["bucket", bucket],
      ["endpoint", endpoint ?? "Amazon's"],
      ["prefix", prefix],
      ["encrypted", encrypted ? "yes, before it is sent" : "no"],
      ["queued", String(queued)],
      ["last sync", last === null ? "none yet" : `${formatAge(last, now())} ago`],
      ["problem", error === null ? "" : { text: error, paint: colors.red }],
    ],
    colors,
  );
}

/** in the place of what an older daemon does not say */
const byOlder = "(of an older daemon)";

function renderModules(modules: readonly RemoteModuleInfo[], colors: Colors): string {
  const rows = modules.map(({ name, format, size, sha256, here, older, problem }): Cell[] => [
    name,
    format ?? "",
    problem === null ? formatBytes(size) : "",
    here === "different" ? { text: here, paint: colors.red } : here,
    problem === null ? (older ? byOlder : (sha256 ?? "").slice(0, 12)) : { text: problem, paint: colors.red },
  ]);
  return renderTable(["MODULE", "FORMAT", "SIZE", "HERE", "SHA-256"], rows, { colors, right: ["SIZE"] });
}

function renderSnapshots(snapshots: readonly RemoteSnapshotInfo[], { colors, now }: Context): string {
  const rows = snapshots.map(({ id, label, created, size, layers, older, problem }): Cell[] => [
    id,
    label,
    problem === null ? formatBytes(size) : "",
    created === null ? "" : formatAge(created, now()),
    problem === null ? (older ? byOlder : layers.join(",")) : { text: problem, paint: colors.red },
  ]);
  return renderTable(["SANDBOX", "LABEL", "SIZE", "AGE", "MODULES"], rows, { colors, right: ["SIZE", "AGE"] });
}

function renderQueue(entries: readonly QueueEntryInfo[], { colors, now }: Context): string {
  const rows = entries.map(({ kind, subject: of, added, attempts, error }): Cell[] => [
    kind,
    of,
    formatAge(added, now()),
    String(attempts),
    error === null ? "" : { text: error, paint: colors.yellow },
  ]);
  return renderTable(["WHAT", "SUBJECT", "AGE", "TRIES", "ERROR"], rows, { colors, right: ["AGE", "TRIES"] });
}

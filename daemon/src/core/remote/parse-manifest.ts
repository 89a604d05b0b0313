import type { NetworkSettings } from "../egress/settings.js";
import { networkSettings } from "../egress/settings.js";
import { parsePolicy } from "../egress/policy.js";
import type { RetentionLimits } from "../ports.js";
import { secretNamePattern } from "../secrets/secret-name.js";
import { bounds, idPattern, labelPattern } from "../validate.js";
import { HostileFields, refuseObject } from "./hostile-fields.js";
import {
  manifestKey,
  manifestText,
  maxManifestBytes,
  type Lease,
  type SandboxManifest,
  type SavedSandbox,
  type Sha256,
} from "./sandbox-manifest.js";

const id = new RegExp(idPattern);
const label = new RegExp(labelPattern);
const secretName = new RegExp(secretNamePattern);
const machineName = /^[A-Za-z0-9][A-Za-z0-9_.-]*$/;
const hex = /^[0-9a-f]{32}$/;
const maxMs = 8.64e15;
const maxBytes = 2 ** 50;
const maxForkedFrom = 200;

/**
 * Reads a manifest that may be anything. Every byte counts: what squashd would not have written so is refused. The flat one of older daemons is read
 * as that of a sandbox which nobody runs; `modifiedMs` is when it was written. Throws `s3_object_invalid`.
 */
export function parseManifest(
  sandboxId: string,
  { body, modifiedMs }: { readonly body: Uint8Array; readonly modifiedMs: number },
  sha256: Sha256,
): SandboxManifest {
  const key = manifestKey(sandboxId);
  if (body.length > maxManifestBytes) refuseObject(key, `is larger than ${maxManifestBytes} bytes`);
  const text = decode(key, body);
  const fields = HostileFields.of(key, text);
  if (!fields.has("schema")) return olderManifest(sandboxId, fields, modifiedMs);
  const schema = fields.integer("schema", 0, Number.MAX_SAFE_INTEGER);
  if (schema !== 1) refuseObject(key, `has schema ${schema}, which is a later squashd's`);
  const manifest = readManifest(sandboxId, fields);
  if (text !== manifestText(manifest, sha256)) refuseObject(key, "is not what its digest says");
  return manifest;
}

function decode(key: string, body: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(body);
  } catch (cause) {
    refuseObject(key, "is not UTF-8", cause);
  }
}

function readManifest(sandboxId: string, fields: HostileFields): SandboxManifest {
  checkId(sandboxId, fields);
  return {
    id: sandboxId,
    epoch: fields.integer("epoch", 0, Number.MAX_SAFE_INTEGER - 1),
    nonce: fields.text("nonce", { max: 32, pattern: hex }),
    lease: fields.nullable("lease", (name) => readLease(fields.inside(name))),
    sandbox: fields.nullable("sandbox", (name) => readSandbox(fields.inside(name))),
    updated: fields.time("updated"),
  };
}

function checkId(sandboxId: string, fields: HostileFields): void {
  if (fields.text("id", { max: 64, pattern: id }) !== sandboxId) fields.refuse("id", "is another sandbox's");
}

function readLease(fields: HostileFields): Lease {
  return {
    machine: fields.text("machine", { max: 128, pattern: machineName }),
    session: fields.text("session", { max: 32, pattern: hex }),
    untilMs: fields.integer("until_ms", 0, maxMs),
  };
}

function readSandbox(fields: HostileFields): SavedSandbox {
  const labelOf = (name: string): string => fields.text(name, { max: 128, pattern: label });
  return {
    created: fields.time("created"),
    ...readPlain(fields),
    layers: fields.texts("layers", { count: bounds.layers, max: 128, pattern: label }),
    pids: fields.nullable("pids", (name) => fields.integer(name, bounds.pids.min, bounds.pids.max)),
    network: readNetwork(fields.inside("network")),
    nestedUserns: fields.flag("nested_userns"),
    upperLimitBytes: fields.nullable("upper_limit_bytes", (name) => fields.integer(name, 0, maxBytes)),
    secrets: fields.nullable("secrets", (name) => fields.texts(name, { count: 10_000, max: 64, pattern: secretName })),
    retention: readRetention(fields.inside("retention")),
    forkedFrom: fields.nullable("forked_from", (name) => fields.text(name, { max: maxForkedFrom })),
    latestSnapshot: fields.nullable("latest_snapshot", labelOf),
    head: fields.nullable("head", labelOf),
    restored: fields.nullable("restored", labelOf),
  };
}

/** What older daemons wrote in the same way. */
function readPlain(fields: HostileFields): Pick<SavedSandbox, "owner" | "task" | "cpu" | "memoryMb" | "maxLifetimeS"> {
  return {
    owner: fields.text("owner", { max: bounds.owner }),
    task: fields.text("task", { max: bounds.task }),
    cpu: fields.number("cpu", bounds.cpu.min, bounds.cpu.max),
    memoryMb: fields.integer("memory_mb", bounds.memoryMb.min, bounds.memoryMb.max),
    maxLifetimeS: fields.number("max_lifetime_s", bounds.lifetimeS.min, bounds.lifetimeS.max),
  };
}

function readNetwork(fields: HostileFields): NetworkSettings {
  const entries = (name: string): string[] => fields.texts(name, { count: bounds.netEntries, max: 512 });
  const kbit = (name: string): number => fields.integer(name, bounds.netKbit.min, bounds.netKbit.max);
  const settings: NetworkSettings = {
    policy: { allow: fields.nullable("allow_net", entries), deny: entries("deny_net") },
    limits: {
      downKbit: fields.nullable("down_kbit", kbit),
      upKbit: fields.nullable("up_kbit", kbit),
      connectionsPerS: fields.nullable("connections_per_s", (name) => fields.integer(name, 1, bounds.connectionsPerS)),
    },
  };
  if (settings.policy.allow?.length === 0) fields.refuse("allow_net", "is empty, which is written as null");
  checkPolicy(settings, fields);
  return settings;
}

function checkPolicy({ policy }: NetworkSettings, fields: HostileFields): void {
  try {
    parsePolicy(policy, { subnets: [] });
  } catch (cause) {
    fields.refuse("allow_net", "is not a policy", cause);
  }
}

function readRetention(fields: HostileFields): Partial<RetentionLimits> {
  const keepLast = fields.nullable("keep_last", (name) => fields.integer(name, 0, bounds.keepLast));
  const keepForS = fields.nullable("keep_for_s", (name) => fields.number(name, 0, bounds.lifetimeS.max));
  return { ...(keepLast !== null && { keepLast }), ...(keepForS !== null && { keepForS }) };
}

/** Nothing of it proves that it is whole, so that it is believed as far as its fields make sense. */
function olderManifest(sandboxId: string, fields: HostileFields, modifiedMs: number): SandboxManifest {
  checkId(sandboxId, fields);
  const written = new Date(modifiedMs).toISOString();
  const allow = fields.has("allow_net") ? fields.nullable("allow_net", (name) => listOf(fields, name)) : null;
  const network = networkSettings({ allow_net: allow });
  checkPolicy(network, fields);
  const latest = fields.nullable("latest_snapshot", (name) => fields.text(name, { max: 128 }));
  if (latest !== null && latest !== "" && !label.test(latest)) fields.refuse("latest_snapshot", "is not a label");
  const latestSnapshot = latest === "" ? null : latest;
  const sandbox: SavedSandbox = {
    created: written,
    ...readPlain(fields),
    layers: listOf(fields, "layers"),
    pids: null,
    network,
    nestedUserns: false,
    upperLimitBytes: null,
    secrets: null,
    retention: {},
    forkedFrom: null,
    latestSnapshot,
    head: latestSnapshot,
    restored: null,
  };
  for (const name of sandbox.layers)
    if (!label.test(name)) fields.refuse("layers", "has what cannot be a module's name");
  return { id: sandboxId, epoch: 0, nonce: "0".repeat(32), lease: null, sandbox, updated: written };
}

/** A list, or a text with commas. */
function listOf(fields: HostileFields, name: string): string[] {
  const list = fields.isText(name)
    ? fields.text(name, { max: 65_536 }).split(",")
    : fields.texts(name, { count: bounds.netEntries, max: 512 });
  const names = list.map((text) => text.trim()).filter((text) => text !== "");
  if (names.length > bounds.netEntries) fields.refuse(name, `is not a list of at most ${bounds.netEntries}`);
  return names;
}

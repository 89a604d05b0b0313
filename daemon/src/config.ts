import { isIP } from "node:net";
import { fileURLToPath } from "node:url";
import { covers, parseNetwork, readNetwork } from "./core/egress/address.js";
import { addressNumber, addressText, type Subnet, type Subnet6 } from "./core/egress/firewall.js";
import { specialRanges } from "./core/egress/special-ranges.js";
import { bounds } from "./core/validate.js";
import { absolutePath, absolutePaths, integer, oneOf, token, type Setting } from "./config-parsers.js";
import { s3Settings } from "./config-s3.js";
import { parseListen, type ListenAddress } from "./listen.js";

const privateNetwork = readNetwork("fc00::/7");
const builtHost = fileURLToPath(new URL("../../native/build/sq-host", import.meta.url));

/** Every setting. The one place that gives names, defaults, checks and the documentation's table. */
export const settings = {
  dataDir: {
    env: "SQUASH_DATA_DIR",
    aliases: ["SQUASH_DATA"],
    fallback: "/data",
    parse: absolutePath,
    doc: "where modules and sandboxes are kept",
  },
  runDir: {
    env: "SQUASH_RUN_DIR",
    fallback: "/run/squash",
    parse: absolutePath,
    doc: "sockets and mount points that a restart of the machine may lose",
  },
  listen: {
    env: "SQUASH_LISTEN",
    fallback: "127.0.0.1",
    parse: parseListen,
    doc: "`address`, `address:port`, `[ipv6]:port` or `unix:/path`; other than loopback only with a token",
  },
  port: {
    env: "SQUASH_PORT",
    fallback: "8080",
    parse: integer(1, 65535),
    doc: "TCP port where SQUASH_LISTEN names none",
  },
  authToken: {
    env: "SQUASH_AUTH_TOKEN",
    fallback: "",
    parse: token,
    secret: true,
    doc: "bearer token that every request but health and the page's files must carry; empty for none",
  },
  backend: { env: "SQUASH_BACKEND", fallback: "cell", parse: backend, doc: "`cell`, or its older name `chroot`" },
  maxSandboxes: {
    env: "SQUASH_MAX_SANDBOXES",
    fallback: "100",
    parse: integer(1, 10_000),
    doc: "sandboxes that may exist at once",
  },
  upperLimitMb: {
    env: "SQUASH_UPPER_LIMIT_MB",
    fallback: "512",
    parse: integer(16, 32_768),
    doc: "size of a sandbox's writable layer in MiB",
  },
  upperBackend: {
    env: "SQUASH_UPPER_BACKEND",
    fallback: "tmpfs",
    parse: oneOf("tmpfs", "loop", "btrfs"),
    doc: "`tmpfs` (in memory, lost at a reboot), `loop` (an ext4 image file each) or `btrfs` (a subvolume each, with instant snapshots and forks); those two survive it",
  },
  poolMb: {
    env: "SQUASH_POOL_MB",
    fallback: "0",
    parse: integer(0, 1_073_741_824),
    doc: "size in MiB of the file that holds all `btrfs` uppers and their snapshots, when it is made; 0 for four fifths of the free space",
  },
  poolSize: {
    env: "SQUASH_POOL_SIZE",
    fallback: "8",
    parse: integer(0, 256),
    doc: "cells made ahead; 0 makes each when it is needed",
  },
  defaultLayers: {
    env: "SQUASH_DEFAULT_LAYERS",
    fallback: "",
    parse: names,
    doc: "modules of a sandbox that names none, separated by commas; empty for `000-base-alpine`, else the first `000-*`",
  },
  keepLast: {
    env: "SQUASH_KEEP_LAST",
    fallback: "0",
    parse: integer(0, bounds.keepLast),
    doc: "newest snapshots of each sandbox that stay, where the sandbox says nothing; 0 says nothing",
  },
  keepForS: {
    env: "SQUASH_KEEP_FOR_S",
    fallback: "0",
    parse: integer(0, bounds.lifetimeS.max),
    doc: "seconds for which a snapshot stays, where the sandbox says nothing; 0 says nothing, and with both 0 all stay",
  },
  moduleFormat: {
    env: "SQUASH_MODULE_FORMAT",
    fallback: "auto",
    parse: oneOf("auto", "squashfs", "erofs"),
    doc: "image of a module that is used where it has both, `squashfs` or `erofs`; `auto`: erofs, which is made where it is missing",
  },
  maxUploadMb: {
    env: "SQUASH_MAX_UPLOAD_MB",
    fallback: "4096",
    parse: integer(1, 1_048_576),
    doc: "largest image or tar file that is taken, in MiB",
  },
  buildDirs: {
    env: "SQUASH_BUILD_DIRS",
    fallback: "",
    parse: absolutePaths,
    doc: "directories of this machine, separated by colons, below which the API may make modules of directories; empty for none",
  },
  subnet: {
    env: "SQUASH_SUBNET",
    fallback: "10.200.0.0/14",
    parse: subnet,
    doc: "IPv4 network of at least 16,384 + 2 addresses for sandboxes and their gateway, or `none`: they have loopback only",
  },
  subnet6: {
    env: "SQUASH_SUBNET6",
    fallback: "none",
    parse: subnet6,
    doc: "IPv6 network from /64 to /112 for sandboxes and their gateway, private or public, or `none`: they have no IPv6",
  },
  resolvConf: {
    env: "SQUASH_RESOLV_CONF",
    fallback: "/etc/resolv.conf",
    parse: absolutePath,
    doc: "file that names the resolvers which are asked for sandboxes; followed when it changes",
  },
  extraCaFile: {
    env: "SQUASH_EXTRA_CA_FILE",
    fallback: "",
    parse: (text: string) => (text === "" ? text : absolutePath(text)),
    doc: "PEM file of roots by which servers are known that secrets go to, besides the host's; empty for none",
  },
  secretsKeyFile: {
    env: "SQUASH_SECRETS_KEY_FILE",
    fallback: "",
    parse: (text: string) => (text === "" ? text : absolutePath(text)),
    doc: "file with the key of 32 bytes that `secrets.json` is encrypted with; empty for none",
  },
  ...s3Settings,
  uidBase: {
    env: "SQUASH_UID_BASE",
    fallback: "1342177280",
    parse: uidBase,
    doc: "first user id on the host that sandboxes get; each takes 65,536",
  },
  cgroupRoot: {
    env: "SQUASH_CGROUP_ROOT",
    fallback: "squash",
    parse: cgroupName,
    doc: "name of the cgroup below which all sandboxes' groups lie",
  },
  logLevel: {
    env: "SQUASH_LOG_LEVEL",
    fallback: "info",
    parse: oneOf("debug", "info", "warn", "error", "silent"),
    doc: "least severe log lines that are written: debug, info, warn, error or silent",
  },
  hostBinary: { env: "SQUASH_HOST_BIN", fallback: builtHost, parse: absolutePath, doc: "the sq-host program" },
} as const satisfies Readonly<Record<string, Setting<unknown>>>;

/** Names that belong to the client and may be in the same environment. */
const clientNames = ["SQUASH_API"];

type Parsed = { readonly [Key in keyof typeof settings]: ReturnType<(typeof settings)[Key]["parse"]> };

/** How this squashd is to work. */
export type Config = Omit<Parsed, "listen" | "port" | "backend" | "subnet" | "subnet6"> & {
  readonly listen: ListenAddress;
  /** null for no network */
  readonly subnet: Subnet | null;
};

/** Reads an environment; all errors at once. Throws an Error whose text is for the operator. */
export function loadConfig(env: Readonly<Record<string, string | undefined>>): Config {
  const problems = strayNames(env).map((name) => `${name}: there is no such setting`);
  const values = Object.entries(settings).map(([key, setting]) => {
    try {
      return [key, read(setting, env)] as const;
    } catch (error) {
      problems.push((error as Error).message);
      return [key, undefined] as const;
    }
  });
  if (problems.length > 0) throw new Error(`Cannot load the configuration:\n  ${problems.join("\n  ")}`);
  const { port, backend: _, listen, subnet: ipv4, subnet6: ipv6, ...rest } = Object.fromEntries(values) as Parsed;
  const address = listen.kind === "tcp" ? { ...listen, port: listen.port ?? port } : listen;
  if (address.kind === "tcp" && !isLoopback(address.host) && rest.authToken === "") {
    throw new Error(
      `Cannot load the configuration:\n  SQUASH_LISTEN: "${address.host}" can be reached from other machines; set SQUASH_AUTH_TOKEN as well, or listen on 127.0.0.1`,
    );
  }
  if (rest.ephemeral === "1" && rest.s3Bucket === "")
    throw new Error(
      "Cannot load the configuration:\n  SQUASH_EPHEMERAL: sandboxes are kept in a bucket then; set SQUASH_S3_BUCKET as well",
    );
  if ((rest.s3AccessKeyId === "") !== (rest.s3SecretAccessKey === ""))
    throw new Error(
      "Cannot load the configuration:\n  SQUASH_S3_ACCESS_KEY_ID: set it together with SQUASH_S3_SECRET_ACCESS_KEY, or neither",
    );
  if (ipv4 === null && ipv6 !== null)
    throw new Error(
      "Cannot load the configuration:\n  SQUASH_SUBNET6: sandboxes have IPv6 only beside IPv4; set SQUASH_SUBNET as well, or neither",
    );
  return Object.freeze({ ...rest, listen: address, subnet: ipv4 === null ? null : { ...ipv4, ipv6 } });
}

/** Whether only this machine can reach the address. */
export function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || (isIP(host) === 4 && host.startsWith("127."));
}

function strayNames(env: Readonly<Record<string, string | undefined>>): string[] {
  const table: readonly Setting<unknown>[] = Object.values(settings);
  const known = new Set([...clientNames, ...table.flatMap(({ env: name, aliases }) => [name, ...(aliases ?? [])])]);
  return Object.keys(env).filter((name) => name.startsWith("SQUASH_") && !known.has(name));
}

function read(setting: Setting<unknown>, env: Readonly<Record<string, string | undefined>>): unknown {
  const name = [setting.env, ...(setting.aliases ?? [])].find((each) => (env[each] ?? "") !== "");
  const text = name === undefined ? setting.fallback : (env[name] ?? "");
  try {
    return setting.parse(text);
  } catch (error) {
    const shown = setting.secret === true ? "" : ` "${text}"`;
    throw new Error(`${name ?? setting.env}:${shown} ${(error as Error).message}`, { cause: error });
  }
}

function backend(text: string): "cell" {
  if (text !== "cell" && text !== "chroot") throw new Error("must be cell");
  return "cell";
}

function names(text: string): readonly string[] {
  return text
    .split(",")
    .map((name) => name.trim())
    .filter((name) => name !== "");
}

/** Room for the network itself, the gateway, and a cell of every number. */
function subnet(text: string): Omit<Subnet, "ipv6"> | null {
  if (text === "none") return null;
  const match = /^(\d{1,3}(?:\.\d{1,3}){3})\/(\d{1,2})$/.exec(text);
  const prefix = Number(match?.[2]);
  if (match?.[1] === undefined || isIP(match[1]) !== 4 || !(prefix >= 8 && prefix <= 17))
    throw new Error('must be a CIDR from /8 to /17 such as 10.200.0.0/14, or "none"');
  const base = addressNumber(match[1]);
  if (base % 2 ** (32 - prefix) !== 0) throw new Error(`must be the first address of its network`);
  return { cidr: text, base, gateway: addressText(base + 1) };
}

/** The same for IPv6: from the size of an Ethernet's network to one whose addresses differ in 16 bits. */
function subnet6(text: string): Subnet6 | null {
  if (text === "none") return null;
  const network = parseNetwork(text);
  if (network?.family !== 6 || network.prefix < 64 || network.prefix > 112)
    throw new Error('must be an IPv6 network from /64 to /112 such as fd00:10:200::/64, or "none"');
  if (!covers(privateNetwork, network)) {
    const special = specialRanges[6].find((range) => covers(readNetwork(range), network));
    if (special !== undefined)
      throw new Error(`must be private (fc00::/7) or public, and not in ${special}, which has another use`);
  }
  const gateway = addressText(network.value + 1n);
  return { cidr: `${addressText(network.value)}/${network.prefix}`, base: network.value, gateway };
}

function uidBase(text: string): number {
  const value = integer(65_536, 3_000_000_000)(text);
  if (value % 65_536 !== 0) throw new Error("must be a multiple of 65536");
  return value;
}

function cgroupName(text: string): string {
  if (!/^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$/.test(text)) throw new Error("must be one name of letters, digits, _ . -");
  return text;
}

import { constants, createWriteStream } from "node:fs";
import { mkdir, open } from "node:fs/promises";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { SquashError } from "@squash/sdk/errors";
import { runTool, type RunTool } from "./run-tool.js";

/** first of 65,536 ids on the host that confined tools have, behind those of sandboxes where these have the usual ones; as in host_capture.c */
const firstId = 2_415_919_104;
const limits = ["--fsize=17179869184", "--as=4294967296", "--nproc=512", "--nofile=1024", "--core=0"];

/**
 * Makes a root of the system's programs and one directory that can be written, then runs a program in it whose root is nobody on the host:
 * in a user namespace, without a network, without sight of other processes or files. Its maps are written from outside, by who has the right.
 * Without ids of its own it stays root, whom alone the kernel lets set and see what overlayfs marks directories with, but in the same root.
 * $1 an empty directory for the root, $2 the directory at /room, $3 a file at /input or "", $4 a library at /preload or "", $5 the first id or "",
 * then limits, "--", and the program.
 */
const script = `
jail=$1 work=$2 input=$3 preload=$4 first=$5
shift 5
mount -t tmpfs -o size=1m,mode=0755,nosuid,nodev tmpfs "$jail"
mkdir "$jail/room" "$jail/etc" "$jail/proc" "$jail/dev"
: >"$jail/dev/null"
mount --bind /dev/null "$jail/dev/null"
for name in usr bin sbin lib lib32 lib64; do
  if [ -L "/$name" ]; then
    ln -s "$(readlink "/$name")" "$jail/$name"
  elif [ -d "/$name" ]; then
    mkdir "$jail/$name"
    mount --bind "/$name" "$jail/$name"
    mount -o remount,bind,ro,nosuid,nodev "$jail/$name"
  fi
done
if [ -f /etc/ld.so.cache ]; then cp /etc/ld.so.cache "$jail/etc/"; fi
if [ -n "$input" ]; then
  : >"$jail/input"
  mount --bind "$input" "$jail/input"
  mount -o remount,bind,ro,nosuid,nodev,noexec "$jail/input"
fi
if [ -n "$preload" ]; then
  : >"$jail/preload"
  mount --bind "$preload" "$jail/preload"
  mount -o remount,bind,ro,nosuid,nodev "$jail/preload"
fi
chown "\${first:-0}:\${first:-0}" "$work"
mount --bind "$work" "$jail/room"
mount -o remount,bind,nosuid,nodev,noexec "$jail/room"
if [ -z "$first" ]; then
  mount -o remount,ro "$jail"
  exec chroot "$jail" \\
    setpriv --clear-groups --no-new-privs --bounding-set=-all,+chown,+dac_override,+fowner,+fsetid,+sys_admin prlimit "$@"
fi
mount -t proc proc "$jail/proc"
unshare --user -- sleep 30 &
own=$(readlink "$jail/proc/self/ns/user")
until [ "$(readlink "$jail/proc/$!/ns/user")" != "$own" ]; do
  kill -0 $!
  sleep 0.01
done
echo "0 $first 65536" >"$jail/proc/$!/uid_map"
echo "0 $first 65536" >"$jail/proc/$!/gid_map"
exec 4<"$jail/proc/$!/ns/user"
kill $!
umount -l "$jail/proc"
mount -o remount,ro "$jail"
nsenter --user=/proc/self/fd/4 --root="$jail" --wd="$jail" -- \\
  setpriv --clear-groups --no-new-privs --bounding-set=-all,+chown,+dac_override,+fowner,+fsetid,+setfcap prlimit "$@"
`;

export interface Workshop {
  /** a directory that the tools may write, and whose content is theirs: hostile */
  readonly work: string;
  /** Runs a tool that may read and write there, and read `input`; paths below either in its arguments are translated. */
  readonly run: RunTool;
  /** The same for a tool that has to set or read `trusted.*` attributes: as root, with few capabilities, and sight of nothing else either. */
  readonly runTrusted: RunTool;
}

/**
 * Makes a place for programs that read what nobody has checked. `scratch` must be a directory that nobody else can enter; `preload` is a library
 * for those that are told to load it, in whose arguments its path is translated.
 */
export async function makeWorkshop(
  scratch: string,
  options: { readonly input?: string; readonly preload?: string; readonly run?: RunTool } = {},
): Promise<Workshop> {
  const { input = "", preload = "", run } = options;
  const work = join(scratch, "work");
  const jail = join(scratch, "jail");
  for (const directory of [work, jail]) await mkdir(directory, { mode: 0o700 });
  if (run !== undefined) return { work, run, runTrusted: run };
  const translate = (argument: string): string => {
    if (input !== "" && argument === input) return "/input";
    if (preload !== "" && argument === `LD_PRELOAD=${preload}`) return "LD_PRELOAD=/preload";
    return argument.startsWith(`${work}/`) ? `/room${argument.slice(work.length)}` : argument;
  };
  const spaces = ["--mount", "--propagation=private", "--net", "--ipc", "--uts", "--pid", "--fork", "--kill-child"];
  const confined =
    (first: string): RunTool =>
    ([program, ...args], toolOptions) =>
      runTool(
        [
          "unshare",
          ...spaces,
          ...["--", "sh", "-euc", script, "sh", jail, work, input, preload, first],
          ...[...limits, "--", program, ...args.map(translate)],
        ],
        toolOptions,
      );
  return { work, run: confined(String(firstId)), runTrusted: confined("") };
}

/** Copies a file that a confined tool has made. Throws `build_failed` for what is no regular file: it could lead anywhere. */
export async function takeFile(from: string, to: string, signal?: AbortSignal): Promise<void> {
  const file = await open(from, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK).catch(refused);
  await using opened = file;
  if (!(await opened.stat()).isFile()) refused();
  const limits = signal === undefined ? {} : { signal };
  const source = opened.createReadStream({ autoClose: false, highWaterMark: 1_048_576 });
  await pipeline(source, createWriteStream(to, { flags: "wx", mode: 0o600 }), limits);

  function refused(cause?: unknown): never {
    throw new SquashError("build_failed", `Cannot take "${from}": it is no regular file`, { cause });
  }
}

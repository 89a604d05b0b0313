import { createHash, randomBytes } from "node:crypto";
import type { Sandbox } from "@squash/sdk";

/**
 * Each write has files of its own, so that two which go on at the same time lose nothing of one another; "state.N" has a line for each of the N writes that
 * came before, and is there whole or not at all.
 */
const newest = `n=$(ls | sed -n 's/^state\\.//p' | sort -n | tail -n 1); n=\${n:-0}`;
const writing = `set -e; mkdir -p /w; cd /w
cat >content-$SEQ; d=$(sha256sum <content-$SEQ); [ "\${d%% *}" = $DIGEST ]
while :; do
  ${newest}
  { [ $n = 0 ] || cat state.$n; echo "$SEQ $DIGEST"; } >next-$SEQ
  if ln next-$SEQ state.$((n + 1)) 2>/dev/null; then break; fi
done
rm next-$SEQ; rm -f state.$((n - 20))
[ $n -lt 8 ] || rm -f content-$(sed -n "$((n - 7))s/ .*//p" state.$((n + 1)))
cat state.$((n + 1))`;
const looking = `cd /w 2>/dev/null || exit 0
${newest}; [ $n = 0 ] && exit 0
cat state.$n; last=$(tail -n 1 state.$n); echo "= $(sha256sum <content-\${last%% *})"`;

const timeLimit = { timeout: 20, deadlineMs: 12_000 };

export interface Written {
  readonly seq: number;
  readonly digest: string;
  readonly text: string;
}

export function newWrite(seq: number, bytes: number): Written {
  const text = randomBytes(bytes).toString("hex");
  return { seq, text, digest: createHash("sha256").update(text).digest("hex") };
}

/** Returns the lines that there are afterwards. Throws where that cannot be told; it may be written then, or be written later. */
export async function writeIn(sandbox: Sandbox, { seq, digest, text }: Written): Promise<string[]> {
  const env = { SEQ: String(seq), DIGEST: digest };
  const { exit_code, stdout, stderr } = await sandbox.exec(writing, { ...timeLimit, env, stdin: text });
  if (exit_code !== 0) throw new Error(`writing ends with ${exit_code}: ${stderr}`);
  return stdout.trim().split("\n");
}

/** Returns the lines that there are, and the digest of what was written last, which is absent where there is none. */
export async function lookIn(sandbox: Sandbox): Promise<{ lines: string[]; content?: string }> {
  const { exit_code, stdout, stderr } = await sandbox.exec(looking, timeLimit);
  if (exit_code !== 0) throw new Error(`looking ends with ${exit_code}: ${stderr}`);
  const all = stdout.trim().split("\n");
  const last = all.pop();
  if (last === undefined || last === "") return { lines: [] };
  return { lines: all, content: last.replace(/^= (\w*) .*$/, "$1") };
}

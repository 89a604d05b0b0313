// What is shown of the daemon's answers, as text; nothing here touches the page, so that it can be tested without one.

const kibi = 1024;

/**
 * Hostile text as it may be shown: at most `limit` characters, each character that would be invisible or change how others are shown
 * replaced by a sign for it. `lines` keeps line ends and tabs.
 */
export function visible(value, { limit = 200, lines = false } = {}) {
  const text = typeof value === "string" ? value : String(value ?? "");
  let shown = "";
  let count = 0;
  for (const character of lines ? withoutReturns(text) : text) {
    if (count++ === limit) return `${shown}…`;
    shown += (lines && /[\n\t]/.test(character)) || !isUnseen(character) ? character : signOf(character);
  }
  return shown;
}

/** Line ends of another system are no news; a lone return, which would hide the line before it, is. */
function withoutReturns(text) {
  return text.replaceAll("\r\n", "\n");
}

/** Controls, formats such as direction marks, half characters, private ones, blanks other than a space, and fillers that show nothing. */
function isUnseen(character) {
  return /^(?:[\p{C}\p{Zl}\p{Zp}\u115f\u1160\u2800\u3164\uffa0\u034f]|(?! )\p{Zs})$/u.test(character);
}

function signOf(character) {
  const code = character.codePointAt(0);
  if (code < 0x20) return String.fromCodePoint(0x2400 + code);
  if (code === 0x7f) return "\u2421";
  return `⟨U+${code.toString(16).toUpperCase().padStart(4, "0")}⟩`;
}

/** Bytes for a person: `512 B`, `1.5 KiB`, `20 MiB`; "?" for what is no size. */
export function bytes(size) {
  if (!Number.isFinite(size) || size < 0) return "?";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let value = size;
  let unit = 0;
  while (value >= kibi && unit < units.length - 1) {
    value /= kibi;
    unit += 1;
  }
  return `${value < 10 && unit > 0 ? value.toFixed(1).replace(/\.0$/, "") : Math.round(value)} ${units[unit]}`;
}

/** Seconds for a person, by the largest unit or two: `45 s`, `3 min`, `2 h 5 min`, `4 d 1 h`. */
export function duration(seconds) {
  if (!Number.isFinite(seconds)) return "?";
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 60) return `${whole} s`;
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 24 ? pair(hours, "h", minutes % 60, "min") : pair(Math.floor(hours / 24), "d", hours % 24, "h");
}

function pair(large, largeUnit, small, smallUnit) {
  return small === 0 ? `${large} ${largeUnit}` : `${large} ${largeUnit} ${small} ${smallUnit}`;
}

/** Milliseconds that a command took: `3 ms`, `1.2 s`, `3 min`. */
export function took(milliseconds) {
  if (!Number.isFinite(milliseconds)) return "?";
  if (milliseconds < 1_000) return `${Math.max(0, Math.round(milliseconds))} ms`;
  return milliseconds < 60_000 ? `${(milliseconds / 1_000).toFixed(1)} s` : duration(milliseconds / 1_000);
}

/** How long ago an RFC 3339 time was. */
export function age(time, nowMs) {
  return duration((nowMs - Date.parse(time)) / 1_000);
}

/** A command as it was given: a text for the shell as it is, a program with its arguments quoted where they need it. */
export function commandText(command) {
  if (!Array.isArray(command)) return String(command);
  return command
    .map(String)
    .map((word) => (/^[\w./:=@%+,-]+$/.test(word) ? word : `'${word.replaceAll("'", String.raw`'\''`)}'`))
    .join(" ");
}

/** How a command ended, in a few words, and whether that is good news. */
export function outcome({ exit_code: status, timed_out: isTimedOut, oom_killed: isOutOfMemory }) {
  if (isTimedOut) return { text: "timed out", isGood: false };
  if (status === 0) return { text: isOutOfMemory ? "exit 0, out of memory" : "exit 0", isGood: !isOutOfMemory };
  const ended = status > 128 && status < 193 ? `signal ${status - 128}` : `exit ${status}`;
  return { text: isOutOfMemory ? `${ended}, out of memory` : ended, isGood: false };
}

/** The routes of an OpenAPI document, in its order. */
export function routesOf(document) {
  const methods = ["get", "post", "put", "patch", "delete"];
  return Object.entries(document?.paths ?? {}).flatMap(([path, item]) =>
    methods
      .filter((method) => typeof item?.[method] === "object")
      .map((method) => ({ method: method.toUpperCase(), path, summary: String(item[method].summary ?? "") })),
  );
}

/** Whether a sandbox has the words somewhere that a person knows it by. */
export function matches(sandbox, words) {
  const wanted = words.toLowerCase().trim();
  return [sandbox.id, sandbox.owner, sandbox.task, sandbox.state, ...sandbox.layers].some((text) =>
    text.toLowerCase().includes(wanted),
  );
}

/** Milliseconds until the next look: a few seconds, and longer with each failure in a row, up to half a minute. */
export function pauseMs(failures) {
  return Math.min(3_000 * 2 ** failures, 30_000);
}

/** The body of a create, of what was typed; what was left empty is absent, so that the daemon's default holds. */
export function createBody({ id, layers, cpu, memory, lifetime, reach, owner, task }) {
  return filled({
    id: id.trim(),
    layers: layers.trim(),
    cpu: numberOf(cpu),
    memory_mb: numberOf(memory),
    max_lifetime_s: numberOf(lifetime),
    allow_net: listOf(reach),
    owner: owner.trim(),
    task: task.trim(),
  });
}

/** The body of an exec, of what was typed. */
export function execBody({ command, workdir, user, timeout }) {
  const name = user.trim();
  return filled({
    cmd: command,
    workdir: workdir.trim(),
    user: /^\d+$/.test(name) ? Number(name) : name,
    timeout: numberOf(timeout),
  });
}

function filled(fields) {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== ""));
}

/** What a sandbox may reach, in one line. */
export function reachOf({ allow_net: allow, deny_net: deny, address }) {
  if (address === null || allow?.[0] === "none") return "reaches nothing";
  const what = allow === null || allow.length === 0 ? "everything public" : allow.join(", ");
  return `reaches ${what}${deny.length === 0 ? "" : `, not ${deny.join(", ")}`}`;
}

/** What was typed between commas or blanks; "" for nothing. */
function listOf(text) {
  const items = text.split(/[\s,]+/).filter((item) => item !== "");
  return items.length === 0 ? "" : items;
}

/** A number where one was typed; another text is sent as it is, and the daemon says what is wrong with it. */
function numberOf(text) {
  const trimmed = text.trim();
  return trimmed === "" || Number.isNaN(Number(trimmed)) ? trimmed : Number(trimmed);
}

const kibi = 1024;

/** Bytes for a person: `512 B`, `1.5 KiB`, `20 MiB`. */
export function formatBytes(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let value = bytes;
  let index = 0;
  while (value >= kibi && index < units.length - 1) {
    value /= kibi;
    index += 1;
  }
  const rounded = value < 10 && index > 0 ? value.toFixed(1).replace(/\.0$/, "") : String(Math.round(value));
  return `${rounded} ${units[index]}`;
}

/** A duration for a person, by its largest unit or two: `45s`, `3m`, `2h 5m`, `4d 1h`. */
export function formatSeconds(seconds: number): string {
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 60) return `${whole}s`;
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return `${minutes}m`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return join(hours, "h", minutes % 60, "m");
  return join(Math.floor(hours / 24), "d", hours % 24, "h");
}

/** How long ago an RFC 3339 time was; "?" for a time that cannot be read. */
export function formatAge(time: string, now: Date): string {
  const milliseconds = now.getTime() - Date.parse(time);
  return Number.isNaN(milliseconds) ? "?" : formatSeconds(milliseconds / 1000);
}

function join(large: number, largeUnit: string, small: number, smallUnit: string): string {
  return small === 0 ? `${large}${largeUnit}` : `${large}${largeUnit} ${small}${smallUnit}`;
}

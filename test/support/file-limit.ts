import { readFileSync } from "node:fs";

/** How many files a program in a sandbox may open: what squash gives it, or less where this machine lets nobody have that. Source: proc(5) */
export function filesInside(): number {
  const hard = /^Max open files\s+\S+\s+(\S+)/m.exec(readFileSync("/proc/self/limits", "utf8"))?.[1];
  return hard === "unlimited" ? 20_000 : Math.min(20_000, Number(hard));
}

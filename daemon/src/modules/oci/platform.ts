import { SquashError } from "@squash/sdk/errors";

/** What an image runs on, in Go's words. */
export interface Platform {
  readonly os: string;
  readonly architecture: string;
  /** null for any */
  readonly variant: string | null;
}

const goNames: Readonly<Record<string, string>> = { x64: "amd64", ia32: "386", ppc64: "ppc64le" };

/** The platform of this machine, or of one whose processor Node.js calls `arch`. */
export function hostPlatform(arch: string = process.arch): Platform {
  return { os: "linux", architecture: goNames[arch] ?? arch, variant: null };
}

/** Reads `linux/arm64` or `linux/arm/v7`. Throws `invalid_request`. */
export function parsePlatform(text: string): Platform {
  const [, os, architecture, variant = null] = /^([a-z0-9]+)\/([a-z0-9_]+)(?:\/([a-z0-9]+))?$/.exec(text) ?? [];
  if (os === undefined || architecture === undefined)
    throw new SquashError(
      "invalid_request",
      `Cannot read the platform ${JSON.stringify(text.slice(0, 100))}: needed is os/architecture[/variant], such as linux/amd64`,
    );
  return { os, architecture, variant };
}

export function platformText({ os, architecture, variant }: Platform): string {
  return [os, architecture, ...(variant === null ? [] : [variant])].join("/");
}

/** Whether what is offered runs on what is wanted. */
export function isPlatform(offered: Partial<Record<keyof Platform, string>>, wanted: Platform): boolean {
  return (
    offered.os === wanted.os &&
    offered.architecture === wanted.architecture &&
    (wanted.variant === null || offered.variant === wanted.variant)
  );
}

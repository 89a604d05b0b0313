/** First kernels that mount images of a format with mapped ids. Source: FS_ALLOW_IDMAP in fs/erofs/super.c and fs/squashfs/super.c */
const mappedSince = { erofs: [5, 19], squashfs: [6, 2] } as const;

/** Formats of images that a kernel of this release can mount with mapped ids; the quicker to read first. By the release alone. */
export function mappableFormats(release: string): (keyof typeof mappedSince)[] {
  return (["erofs", "squashfs"] as const).filter((format) => isAtLeast(release, mappedSince[format]));
}

/** Whether a kernel's release, such as "6.1.0-56-cloud-amd64", is that version or a later one. */
export function isAtLeast(release: string, [major, minor]: readonly [number, number]): boolean {
  const [ownMajor = 0, ownMinor = 0] = release.split(/[.-]/).map(Number);
  return ownMajor > major || (ownMajor === major && ownMinor >= minor);
}

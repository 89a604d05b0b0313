import { randomHex } from "./random.js";

const subvolume = /^[0-9a-f]{32}\.(\d{1,5})$/;

/**
 * Names a new image of a snapshot. One that is a subvolume has at its end the number of the cell whose user ids are stored in it; one without is
 * an erofs file, which has owners as sandboxes see them.
 */
export function newImage(owner: number | null): string {
  const id = randomHex(16);
  return owner === null ? id : `${id}.${owner}`;
}

/** The cell whose user ids are stored in an image that is a subvolume; null for an erofs file. */
export function ownerOfImage(image: string): number | null {
  const owner = subvolume.exec(image)?.[1];
  return owner === undefined ? null : Number(owner);
}

/** Name of a snapshot's image as a layer. */
export function layerOfImage(image: string): string {
  return `snapshot-${image}`;
}

/** The same as `ownerOfImage`, by the key under which a layer is mounted; null for modules. */
export function ownerOfLayer(key: string): number | null {
  const name = key.split("@", 1)[0] ?? "";
  return name.startsWith("snapshot-") && key.endsWith(".subvolume")
    ? ownerOfImage(name.slice("snapshot-".length))
    : null;
}

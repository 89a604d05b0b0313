import { expect, it } from "vitest";
import { layerOfImage } from "./image-ids.js";
import { SnapshotImages } from "./snapshot-images.js";

/** A disk whose removals and listings end when told to. */
function slowDisk(...images: string[]): {
  store: ConstructorParameters<typeof SnapshotImages>[0];
  finish: () => void;
} {
  const onDisk = new Set(images);
  let finish = (): void => undefined;
  const told = new Promise<void>((resolve) => (finish = resolve));
  const store = {
    listSnapshotImages: () => Promise.resolve([...onDisk]),
    removeSnapshotImage: async (image: string) => {
      await told;
      onDisk.delete(image);
      return 1;
    },
    snapshotFacts: () => null,
    snapshotImage: (image: string) => `snapshots/${image}.erofs`,
  };
  return { store, finish };
}

const layers = { keyOf: ({ name }: { readonly name: string }) => name, drop: () => Promise.resolve() };

it("does not find an image unused that is being removed, nor one that loses its last user while the disk is read", async () => {
  const { store, finish } = slowDisk("going", "held", "orphan");
  const images = new SnapshotImages(store, layers, () => []);
  const removal = images.release(["going"]);
  let letGo = (): void => undefined;
  const use = images.hold(["held"], () => new Promise<void>((resolve) => (letGo = resolve)));
  const found = images.unused();
  letGo();
  expect(await found).toEqual(["orphan"]);
  finish();
  await Promise.all([removal, use]);
  expect(await images.unused()).toEqual(["orphan"]);
});

it("has an image unmounted that nobody uses any more, and then removed", async () => {
  const { store, finish } = slowDisk("gone");
  const dropped: string[] = [];
  const drop = (key: string): Promise<void> => Promise.resolve(void dropped.push(key));
  const images = new SnapshotImages(store, { ...layers, drop }, () => []);
  finish();
  await images.release(["gone"]);
  expect(dropped).toEqual([layerOfImage("gone")]);
  expect(await images.unused()).toEqual([]);
});

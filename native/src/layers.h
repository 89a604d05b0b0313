/* Modules as mounted: each once for the whole host, read-only, below /l of sq-host's mount namespace, under a name that squashd chose. */
#ifndef SQ_LAYERS_H
#define SQ_LAYERS_H

#include "failure.h"

struct writer;

/* Mounts an image (host path) as layer `name`; `type` is "squashfs" or "erofs". */
int layer_mount(const char *name, const char *image, const char *type, struct failure *failure);

/* The same for the files of a snapshot: `image` is "pool/" and its name. Their owners stay as they are stored. */
int layer_mount_subvolume(int own_mounts, int host_mounts, int pool, const char *name, const char *image, struct failure *failure);

/* Unmounts it; idempotent. Stacks that use it keep the filesystem alive. */
int layer_unmount(const char *name, struct failure *failure);

/* Path of a layer's mount point. Fails unless the name is harmless. */
int layer_path(const char *name, char *path, unsigned long size, struct failure *failure);

#endif

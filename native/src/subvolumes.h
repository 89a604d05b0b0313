/*
 * The pool: one btrfs for all uppers of that kind, mounted in the host's mount namespace at <data dir>/pool. u/ in it has a subvolume for each
 * upper, with a quota; s/ has read-only snapshots of them. Names are relative to the pool: "u/<name>" or "s/<name>".
 */
#ifndef SQ_SUBVOLUMES_H
#define SQ_SUBVOLUMES_H

#include <stdint.h>

#include "failure.h"

enum { SUBVOLUME_NAME_LIMIT = 200 };

/*
 * Mounts the pool, unless it is: `image` (below the data directory) through a loop device, or with "" the directory itself, which must then lie
 * on a btrfs. Makes its directories and turns quotas on. `namespaces` are sq-host's own and the host's, here and below.
 */
int pool_mount(int own_mounts, int host_mounts, const char *data_dir, const char *image, struct failure *failure);

/* Unmounts it; idempotent. What still uses it keeps the filesystem alive. */
int pool_unmount(int own_mounts, int host_mounts, const char *data_dir, struct failure *failure);

/* The pool's root directory. */
int pool_open(int own_mounts, int host_mounts, const char *data_dir, struct failure *failure);

/* Makes an empty subvolume in which files may take `limit` bytes. One of that name, which a crash has left, goes before. */
int subvolume_create(int pool, const char *name, uint64_t limit, struct failure *failure);

/* Makes `name` a read-only snapshot of `source`, which shares its content. Nothing may write to that meanwhile. */
int subvolume_snapshot(int pool, const char *source, const char *name, struct failure *failure);

/* Removes a subvolume; its content goes in the background. Idempotent. */
int subvolume_remove(int pool, const char *name, struct failure *failure);

/* Writes all to the disk, and lets what was removed be freed, which otherwise begins half a minute later. */
int pool_flush(int pool, struct failure *failure);

/* Bytes that the files in a subvolume take, shared ones included, as of the last commit. */
int subvolume_use(int pool, const char *name, uint64_t *bytes, struct failure *failure);

/* A detached mount of a subvolume, or of `directory` in it, with the attributes of the pool's mount. */
int subvolume_copy(int own_mounts, int host_mounts, int pool, const char *name, const char *directory, struct failure *failure);

#endif

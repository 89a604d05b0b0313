/* Writable layers: a filesystem of its own for each sandbox, mounted in the host's mount namespace, with data/ and work/ in it. */
#ifndef SQ_UPPER_H
#define SQ_UPPER_H

#include <stdint.h>

#include "failure.h"

struct upper_plan {
  const char *path;  /* mount point on the host, absolute */
  const char *image; /* "" for tmpfs, else an ext4 image file on the host, absolute */
  const char *subvolume; /* name in the pool instead of an image; NULL for none */
  int pool;          /* the pool's root directory, for a subvolume */
  uint64_t size;     /* bytes; for tmpfs, and for a subvolume that is to be made */
  uint32_t uid_base; /* owner of data/ */
};

/* Mounts the filesystem; what it holds already is kept. `namespaces` are sq-host's own and the host's. */
int upper_mount(int own_mounts, int host_mounts, const struct upper_plan *plan, struct failure *failure);

/* Unmounts it, however often it is mounted there; idempotent. */
int upper_unmount(int own_mounts, int host_mounts, const char *path, struct failure *failure);

/* A detached copy of the mount at `path` in the host's namespace. */
int upper_copy(int own_mounts, int host_mounts, const char *path, struct failure *failure);

/* Bytes of such a name: what all cells' group is named by, and a sandbox's id. */
enum { NETNS_MAX_NAME = 160 };

/* Shows a network namespace to `ip netns` under `name`, and takes that back (idempotent). */
int netns_publish(int own_mounts, int host_mounts, int netns, const char *name, struct failure *failure);
int netns_withdraw(int own_mounts, int host_mounts, const char *name, struct failure *failure);

#endif

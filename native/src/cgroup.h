/*
 * One cgroup per cell, named c<index>, below the configured group. Version 2 uses one directory; version 1 (also in its hybrid form)
 * uses one per controller. The directories are opened before sq-host leaves the host's mount namespace.
 */
#ifndef SQ_CGROUP_H
#define SQ_CGROUP_H

#include <stdbool.h>
#include <stdint.h>

#include "failure.h"

enum cgroup_controller { CG_MEMORY, CG_CPU, CG_PIDS, CG_FREEZER, CG_CONTROLLERS };

struct cgroups {
  int version;             /* 1 or 2 */
  int dirs[CG_CONTROLLERS]; /* parents of the cells' groups; version 2 uses only the first */
};

struct cell_limits {
  uint64_t memory_bytes;
  uint32_t cpu_quota_us; /* per 100 ms */
  uint32_t pids;
};

/* Opens the parents at `paths` (as many as the version has), which must exist with their controllers enabled. */
int cgroups_open(struct cgroups *cgroups, int version, char *const *paths, struct failure *failure);

int cgroup_make(const struct cgroups *cgroups, uint32_t index, struct failure *failure);

/* Moves the calling, single-threaded process into the group. */
int cgroup_join(const struct cgroups *cgroups, uint32_t index, struct failure *failure);

int cgroup_limit(const struct cgroups *cgroups, uint32_t index, const struct cell_limits *limits, struct failure *failure);

/* Freezes (and waits until nothing runs) or thaws. */
int cgroup_freeze(const struct cgroups *cgroups, uint32_t index, bool frozen, struct failure *failure);

/* Kills whatever is in the group by pidfd; only for cells whose init is not known. Returns the number of processes found. */
int cgroup_kill(const struct cgroups *cgroups, uint32_t index, struct failure *failure);

/* Removes the group; idempotent. Fails with EBUSY while processes are left. */
int cgroup_remove(const struct cgroups *cgroups, uint32_t index, struct failure *failure);

#endif

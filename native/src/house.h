/*
 * sq-host's own mount namespace: a tmpfs with only what it needs. Cells are copied from it, and a copy costs by the mount, so it must stay
 * small. It is pinned at <run dir>/mounts, so that layers outlive a crash of sq-host and are found again by the next one.
 */
#ifndef SQ_HOUSE_H
#define SQ_HOUSE_H

#include <stdbool.h>

#include "failure.h"

struct house {
  int own_mounts, host_mounts; /* mount namespaces */
  int lock;                    /* held as long as this sq-host lives: one per run directory */
  bool inherited;              /* whether the namespace of an earlier sq-host was found */
};

/* Builds or finds the namespace and enters it. `run_dir` and `data_dir` are absolute and exist. */
int house_open(struct house *house, const char *run_dir, const char *data_dir, struct failure *failure);

/* Unpins the namespace; what is still mounted in it goes when nothing uses it. Idempotent. */
int house_close(const struct house *house, const char *run_dir, struct failure *failure);

#endif

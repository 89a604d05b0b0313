/* Giving a cell its files: an overlay of layers and an upper becomes the root of all that runs in it. */
#ifndef SQ_ROOT_H
#define SQ_ROOT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "failure.h"

/* 120 modules with 16 images of snapshots on top of them, and room for a few more. */
enum { MAX_LAYERS = 144 };

struct root_plan {
  pid_t pid;            /* the cell's init */
  uint32_t uid_base;    /* host id of its root */
  const char *hostname;
  bool named;           /* whether the files in /etc that name hosts are to be written: not where the sandbox has had them before */
  bool fresh;           /* whether the upper is new: it then gets the attributes of the topmost layer's root directory */
  bool again;           /* whether the cell has a root, in which nothing runs: it goes before the new one is made, and so does /dev/shm with a new upper */
  uint32_t nameserver;  /* IPv4, in the host's byte order; 0 where there is no network */
  const char *upper;    /* the upper's mount point on the host */
  const char *layers[MAX_LAYERS]; /* topmost first */
  uint32_t owners[MAX_LAYERS];    /* host id from which on owners are stored in each; 0 for those of modules */
  uint32_t layer_count;
};

/* On failure the cell is to be thrown away. `own_mounts` and `host_mounts` are namespaces; the caller is in the former. */
int root_give(int own_mounts, int host_mounts, const struct root_plan *plan, struct failure *failure);

#endif

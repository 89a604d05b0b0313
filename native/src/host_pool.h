/* sq-host's side of the pool: requests, and the processes that do what may take a while, so that the loop does not wait. */
#ifndef SQ_HOST_POOL_H
#define SQ_HOST_POOL_H

#include "host_ops.h"

int op_pool_mount(struct host *host, struct reader *reader, struct failure *failure);
int op_pool_unmount(struct host *host, struct reader *reader, struct failure *failure);
int op_subvolume_use(struct host *host, struct reader *reader, struct failure *failure);

/* Flushes, snapshots and removals. At most MAX_POOL_WORKERS are done at a time; one more fails with EAGAIN. */
enum outcome op_pool_task(struct host *host, uint16_t type, uint32_t request, struct reader *reader, struct failure *failure);

/* A worker has reported, or has died. */
void host_pool_done(struct host *host, uint32_t worker);

/* The pool's root directory, which stays open; -1 where none is mounted. */
int host_pool(struct host *host, struct failure *failure);

#endif

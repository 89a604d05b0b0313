/* Making a cell: namespaces, cgroup, user mapping, /proc, /dev and /sys, and an init that waits for commands. */
#ifndef SQ_CELL_H
#define SQ_CELL_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "cgroup.h"
#include "failure.h"
#include "network.h"

enum { IDS_PER_CELL = 65536, MAX_CELLS = 16384 };

struct cell_plan {
  uint32_t index;
  uint32_t uid_base; /* host id of the cell's root */
  bool nested_userns;
  const struct network *network;
};

/* What the maker tells sq-host through a pipe, exactly once. `pid` is 0 when it failed. */
struct cell_report {
  pid_t pid;
  uint64_t start_time; /* field 22 of /proc/<pid>/stat */
  struct failure failure;
};

/*
 * Forks a maker that makes the cell and reports on a pipe. The cell's init becomes a child of the caller. Returns the pipe's reading end.
 * The maker takes back all that it made when a step fails.
 */
int cell_start_making(const struct cgroups *cgroups, const struct cell_plan *plan, pid_t *maker, struct failure *failure);

/* The start time of a process, in clock ticks since boot. */
int process_start_time(pid_t pid, uint64_t *start_time, struct failure *failure);

/* Path of a cell's init socket in sq-host's mount namespace. */
void cell_socket_path(uint32_t index, char path[64]);

#endif

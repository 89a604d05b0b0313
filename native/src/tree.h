/* Killing a process with all its descendants. */
#ifndef SQ_TREE_H
#define SQ_TREE_H

#include <sys/types.h>

/*
 * Kills every descendant of the calling process, which must be a subreaper: whatever detached itself is a descendant still. They are
 * stopped first, so that a fork bomb cannot outrun the search, and killed when no new ones turn up. `proc` is a descriptor of /proc.
 * Returns the number of descendants left, which is 0 unless the time ran out.
 */
int kill_descendants(int proc, int timeout_ms);

#endif

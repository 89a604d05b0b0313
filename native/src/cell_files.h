/* The files of a cell that are not the sandbox's: /proc, /dev and /sys, on a skeleton root until the real one comes. */
#ifndef SQ_CELL_FILES_H
#define SQ_CELL_FILES_H

#include <stdint.h>

#include "failure.h"

/* Builds the templates /template/dev and /template/sys that every cell gets a read-only copy of. Called once, by sq-host. */
int make_templates(struct failure *failure);

/* In the new cell, as real root in the new namespaces: builds the skeleton and makes it the root. */
int make_skeleton(uint32_t uid_base, struct failure *failure);

/* In a cell's mount namespace: an empty /dev/shm in place of the one that is there. */
int renew_shared_memory(struct failure *failure);

/* An empty root, detached, that a cell may have between two others. */
int make_empty_root(struct failure *failure);

#endif

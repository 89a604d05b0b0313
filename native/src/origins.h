/*
 * Of which files of layers those of an upper are copies. overlayfs notes that with each copy, and takes copy and original for one file where it
 * meets both. Within one stack it never does: a whiteout hides the original of what was moved. Between two stacks the whiteout may have
 * gone with a directory that a layer covered. Source: Linux fs/overlayfs/inode.c, ovl_get_inode
 */
#ifndef SQ_ORIGINS_H
#define SQ_ORIGINS_H

#include <stdint.h>

#include "failure.h"

/* Has all files below `directory` forget their originals, but for directories, which overlayfs finds by name. Returns how many did, or -1. */
int64_t forget_origins(int directory, struct failure *failure);

#endif

/* Building blocks of every mount that sq-host makes. */
#ifndef SQ_MOUNTS_H
#define SQ_MOUNTS_H

#include <stddef.h>
#include <stdint.h>

#include "failure.h"

/* One `key=value` for fsconfig; a NULL value is a flag. */
struct mount_option {
  const char *key, *value;
};

/* A detached mount of a new filesystem; `attributes` are MOUNT_ATTR_*. Returns its descriptor, or -1. */
int mount_new(const char *type, const struct mount_option *options, size_t count, uint64_t attributes, struct failure *failure);

/* A detached copy of the tree at `path`, with `attributes` set on every mount in it. */
int mount_clone(const char *path, uint64_t attributes, struct failure *failure);

/* A detached, read-only copy of one mount whose owners are shifted by the user namespace `userns`. */
int mount_clone_idmapped(const char *path, int userns, struct failure *failure);

/* Attaches a detached mount at a path, which must exist. */
int mount_attach(int mount, const char *path, struct failure *failure);

/* Attaches a detached mount on the file or directory that `target` is open on. */
int mount_attach_at(int mount, int target, const char *name, struct failure *failure);

/* Enters a mount namespace; root and working directory become its root. */
int enter_mounts(int namespace, struct failure *failure);

/* Attaches an image file to a free loop device that goes away with its last user. Returns the device's descriptor and its path. */
int loop_attach(const char *image, int writable, char *device, size_t device_size, struct failure *failure);

/* The writable loop device that an image is attached to already, whose filesystem may still live: its descriptor and path. -1 for none. */
int loop_find(const char *image, char *device, size_t device_size);

#endif

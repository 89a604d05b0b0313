#include "kernel_api.h"

#include "layers.h"

#include <errno.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "io.h"
#include "mounts.h"
#include "subvolumes.h"

int layer_path(const char *name, char *path, unsigned long size, struct failure *failure) {
  errno = EINVAL;
  if (name[0] == '\0' || name[0] == '.' || strchr(name, '/') != NULL) return fail(failure, "use layer name %s", name);
  if (format(path, size, "/l/%s", name) < 0) return fail(failure, "use layer name %s", name);
  return 0;
}

enum { ATTRIBUTES = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID };

/*
 * erofs mounts a file by itself where the kernel can (6.12). The kernel gets what was opened and looked at: with the image's path it would
 * follow links, and wait for a pipe's other end for ever.
 */
static int mount_file(const char *image, const char *type) {
  struct failure ignored = {0};
  char source[64];
  struct stat info;
  AUTO_CLOSE int file = open(image, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (file < 0 || fstat(file, &info) < 0 || !S_ISREG(info.st_mode)) return -1;
  (void)format(source, sizeof(source), "/proc/self/fd/%d", file);
  const struct mount_option options[] = {{"source", source}, {"ro", NULL}};
  return mount_new(type, options, ARRAY_LEN(options), ATTRIBUTES, &ignored);
}

/* Everything else goes through a loop device, which also says what is wrong. */
static int mount_image(const char *image, const char *type, struct failure *failure) {
  int mount = strcmp(type, "erofs") == 0 ? mount_file(image, type) : -1;
  if (mount >= 0) return mount;
  char device[32];
  AUTO_CLOSE int loop = loop_attach(image, 0, device, sizeof(device), failure);
  if (loop < 0) return -1;
  const struct mount_option options[] = {{"source", device}, {"ro", NULL}};
  return mount_new(type, options, ARRAY_LEN(options), ATTRIBUTES, failure);
}

static int attach(int mount, const char *name, struct failure *failure) {
  char path[320];
  if (layer_path(name, path, sizeof(path), failure) < 0) return -1;
  if (mkdir(path, 0755) < 0) return fail(failure, "make mount point of layer %s", name);
  if (mount_attach(mount, path, failure) < 0) {
    (void)rmdir(path);
    return -1;
  }
  return 0;
}

int layer_mount(const char *name, const char *image, const char *type, struct failure *failure) {
  char path[320];
  errno = EINVAL;
  if (strcmp(type, "squashfs") != 0 && strcmp(type, "erofs") != 0) return fail(failure, "mount an image of type %s", type);
  if (layer_path(name, path, sizeof(path), failure) < 0) return -1;
  AUTO_CLOSE int mount = mount_image(image, type, failure);
  return mount < 0 ? -1 : attach(mount, name, failure);
}

int layer_mount_subvolume(int own_mounts, int host_mounts, int pool, const char *name, const char *image, struct failure *failure) {
  struct mount_attr attr = {.attr_set = ATTRIBUTES};
  errno = EINVAL;
  if (strncmp(image, "pool/s/", 7) != 0) return fail(failure, "mount %s as a layer", image);
  AUTO_CLOSE int mount = subvolume_copy(own_mounts, host_mounts, pool, image + 5, "data", failure);
  if (mount < 0) return -1;
  if (sys_mount_setattr(mount, "", AT_EMPTY_PATH, &attr) < 0) return fail(failure, "make layer %s read-only", name);
  return attach(mount, name, failure);
}

int layer_unmount(const char *name, struct failure *failure) {
  char path[320];
  if (layer_path(name, path, sizeof(path), failure) < 0) return -1;
  if (umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW) < 0 && errno != EINVAL && errno != ENOENT)
    return fail(failure, "unmount layer %s", name);
  if (rmdir(path) < 0 && errno != ENOENT) return fail(failure, "remove mount point of layer %s", name);
  return 0;
}

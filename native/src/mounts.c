#include "kernel_api.h"

#include "mounts.h"

#include <dirent.h>
#include <errno.h>
#include <linux/loop.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "io.h"

int mount_new(const char *type, const struct mount_option *options, size_t count, uint64_t attributes, struct failure *failure) {
  AUTO_CLOSE int context = sys_fsopen(type);
  if (context < 0) return fail(failure, "open filesystem type %s", type);
  for (size_t i = 0; i < count; i++) {
    unsigned command = options[i].value == NULL ? FSCONFIG_SET_FLAG : FSCONFIG_SET_STRING;
    if (sys_fsconfig(context, command, options[i].key, options[i].value, 0) < 0)
      return fail(failure, "set %s option %s=%s", type, options[i].key, options[i].value == NULL ? "" : options[i].value);
  }
  if (sys_fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0) {
    int code = errno;
    char log[128];
    ssize_t length = read(context, log, sizeof(log) - 1); /* the kernel explains itself on the context's descriptor */
    log[length > 0 ? length : 0] = '\0';
    errno = code;
    return fail(failure, "create %s filesystem (%s)", type, log);
  }
  int mount = sys_fsmount(context, (unsigned)attributes);
  if (mount < 0) return fail(failure, "mount %s", type);
  return mount;
}

int mount_clone(const char *path, uint64_t attributes, struct failure *failure) {
  int mount = sys_open_tree(AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE | AT_SYMLINK_NOFOLLOW);
  if (mount < 0) return fail(failure, "copy mount %s", path);
  struct mount_attr attr = {.attr_set = attributes};
  if (attributes != 0 && sys_mount_setattr(mount, "", AT_EMPTY_PATH | AT_RECURSIVE, &attr) < 0) {
    close_fd(&mount);
    return fail(failure, "set attributes of mount %s", path);
  }
  return mount;
}

int mount_clone_idmapped(const char *path, int userns, struct failure *failure) {
  int mount = sys_open_tree(AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_SYMLINK_NOFOLLOW);
  if (mount < 0) return fail(failure, "copy layer %s", path);
  struct mount_attr attr = {.attr_set = MOUNT_ATTR_IDMAP | MOUNT_ATTR_RDONLY | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID,
                            .userns_fd = (uint64_t)userns};
  if (sys_mount_setattr(mount, "", AT_EMPTY_PATH, &attr) < 0) {
    close_fd(&mount);
    return fail(failure, "shift the owners of layer %s", path);
  }
  return mount;
}

int mount_attach(int mount, const char *path, struct failure *failure) {
  if (sys_move_mount(mount, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH) < 0) return fail(failure, "attach mount at %s", path);
  return 0;
}

int mount_attach_at(int mount, int target, const char *name, struct failure *failure) {
  if (sys_move_mount(mount, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0)
    return fail(failure, "attach mount at %s", name);
  return 0;
}

int enter_mounts(int namespace, struct failure *failure) {
  if (setns(namespace, CLONE_NEWNS) < 0) return fail(failure, "enter mount namespace");
  return 0;
}

/* Opens /dev/loopN, which a container's /dev may lack. */
static int open_loop_device(int number, char *path, size_t size) {
  if (format(path, size, "/dev/loop%d", number) < 0) return -1;
  int fd = open(path, O_RDWR | O_CLOEXEC);
  if (fd >= 0 || errno != ENOENT) return fd;
  if (mknod(path, S_IFBLK | 0600, makedev(7, (unsigned)number)) < 0 && errno != EEXIST) return -1;
  return open(path, O_RDWR | O_CLOEXEC);
}

int loop_attach(const char *image, int writable, char *device, size_t device_size, struct failure *failure) {
  AUTO_CLOSE int file = open(image, (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (file < 0) return fail(failure, "open image %s", image);
  struct stat info;
  if (fstat(file, &info) < 0 || !S_ISREG(info.st_mode)) {
    errno = EINVAL;
    return fail(failure, "use image %s, which is not a regular file", image);
  }
  AUTO_CLOSE int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
  if (control < 0) return fail(failure, "open /dev/loop-control");
  /* Another program may take the free device between the two calls; it then says EBUSY, and the next one is asked for. */
  for (int attempt = 0; attempt < 64; attempt++) {
    int number = ioctl(control, LOOP_CTL_GET_FREE);
    if (number < 0) return fail(failure, "find a free loop device");
    int loop = open_loop_device(number, device, device_size);
    if (loop < 0) return fail(failure, "open loop device %d", number);
    struct loop_config config = {.fd = (uint32_t)file};
    config.info.lo_flags = LO_FLAGS_AUTOCLEAR | (writable ? 0 : LO_FLAGS_READ_ONLY);
    (void)snprintf((char *)config.info.lo_file_name, sizeof(config.info.lo_file_name), "%s", image);
    if (ioctl(loop, LOOP_CONFIGURE, &config) == 0) return loop;
    int code = errno;
    close_fd(&loop);
    errno = code;
    if (code != EBUSY) return fail(failure, "attach image %s to a loop device", image);
  }
  errno = EBUSY;
  return fail(failure, "find a free loop device for %s", image);
}

static bool is_attached(int loop, const struct stat *image) {
  struct loop_info64 info;
  if (ioctl(loop, LOOP_GET_STATUS64, &info) < 0) return false; /* it is free, or on its way to be */
  return info.lo_device == image->st_dev && info.lo_inode == image->st_ino && (info.lo_flags & LO_FLAGS_READ_ONLY) == 0;
}

int loop_find(const char *image, char *device, size_t device_size) {
  struct stat info;
  if (stat(image, &info) < 0) return -1;
  DIR *directory = opendir("/sys/block");
  int found = -1;
  for (const struct dirent *entry; directory != NULL && found < 0 && (entry = readdir(directory)) != NULL;) {
    if (strncmp(entry->d_name, "loop", 4) != 0 || format(device, device_size, "/dev/%s", entry->d_name) < 0) continue;
    int loop = open(device, O_RDWR | O_CLOEXEC);
    if (loop >= 0 && is_attached(loop, &info)) found = loop;
    if (found < 0) close_fd(&loop);
  }
  if (directory != NULL) (void)closedir(directory);
  return found;
}

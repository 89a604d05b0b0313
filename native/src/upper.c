#include "kernel_api.h"

#include "upper.h"

#include <errno.h>
#include <linux/magic.h>
#include <stdbool.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "io.h"
#include "mounts.h"
#include "subvolumes.h"

/* Runs `action` in the host's mount namespace and comes back, whatever happened. Not being able to come back is the end of sq-host. */
static int in_host(int own_mounts, int host_mounts, int (*action)(void *), void *argument, struct failure *failure) {
  if (enter_mounts(host_mounts, failure) < 0) return -1;
  int result = action(argument);
  struct failure back = {0};
  if (enter_mounts(own_mounts, &back) < 0) _exit(70);
  return result;
}

static int make_tmpfs(const struct upper_plan *plan, struct failure *failure) {
  char size[32], inodes[32];
  /* An inode for every 4 KiB, but never fewer than a small tree needs; they are the sandbox's own memory, so the bound is a second one. */
  uint64_t count = plan->size / 4096 < 65536 ? 65536 : plan->size / 4096;
  (void)format(size, sizeof(size), "%llu", (unsigned long long)plan->size);
  (void)format(inodes, sizeof(inodes), "%llu", (unsigned long long)count);
  const struct mount_option options[] = {{"size", size}, {"nr_inodes", inodes}, {"mode", "0755"}};
  return mount_new("tmpfs", options, ARRAY_LEN(options), MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV, failure);
}

static int make_ext4(const struct upper_plan *plan, struct failure *failure) {
  char device[32];
  AUTO_CLOSE int loop = loop_attach(plan->image, 1, device, sizeof(device), failure);
  if (loop < 0) return -1;
  const struct mount_option options[] = {{"source", device}, {"errors", "remount-ro"}};
  return mount_new("ext4", options, ARRAY_LEN(options), MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOATIME, failure);
}

/* Makes data/ (the sandbox's root directory) and work/ (overlayfs's own) where they are missing. */
static int prepare(int mount, uint32_t uid_base, struct failure *failure) {
  if (mkdirat(mount, "data", 0755) == 0) {
    if (fchownat(mount, "data", uid_base, uid_base, AT_SYMLINK_NOFOLLOW) < 0) return fail(failure, "give the upper its owner");
  } else if (errno != EEXIST) {
    return fail(failure, "make the upper's data directory");
  }
  if (mkdirat(mount, "work", 0700) < 0 && errno != EEXIST) return fail(failure, "make the upper's work directory");
  return 0;
}

struct attach_arguments {
  int mount;
  const char *path;
  struct failure *failure;
};

static int attach_action(void *argument) {
  const struct attach_arguments *attach = argument;
  return mount_attach(attach->mount, attach->path, attach->failure);
}

static int make_mount(int own_mounts, int host_mounts, const struct upper_plan *plan, struct failure *failure) {
  if (plan->subvolume != NULL) {
    if (plan->size > 0 && subvolume_create(plan->pool, plan->subvolume, plan->size, failure) < 0) return -1;
    return subvolume_copy(own_mounts, host_mounts, plan->pool, plan->subvolume, ".", failure);
  }
  if (plan->image[0] == '\0') return make_tmpfs(plan, failure);
  if (enter_mounts(host_mounts, failure) < 0) return -1; /* the image lies on the host */
  int mount = make_ext4(plan, failure);
  struct failure back = {0};
  if (enter_mounts(own_mounts, &back) < 0) _exit(70);
  return mount;
}

int upper_mount(int own_mounts, int host_mounts, const struct upper_plan *plan, struct failure *failure) {
  AUTO_CLOSE int mount = make_mount(own_mounts, host_mounts, plan, failure);
  if (mount < 0 || prepare(mount, plan->uid_base, failure) < 0) return -1;
  struct attach_arguments arguments = {mount, plan->path, failure};
  return in_host(own_mounts, host_mounts, attach_action, &arguments, failure);
}

static int unmount_action(void *argument) {
  const struct attach_arguments *target = argument;
  for (int depth = 0; depth < 16; depth++) {
    if (umount2(target->path, MNT_DETACH | UMOUNT_NOFOLLOW) == 0) continue;
    /* EINVAL: nothing is mounted there, which is what was asked for */
    return errno == EINVAL || errno == ENOENT ? 0 : fail(target->failure, "unmount %s", target->path);
  }
  return fail(target->failure, "unmount %s, which is mounted again and again", target->path);
}

int upper_unmount(int own_mounts, int host_mounts, const char *path, struct failure *failure) {
  struct attach_arguments arguments = {-1, path, failure};
  return in_host(own_mounts, host_mounts, unmount_action, &arguments, failure);
}

static int copy_action(void *argument) {
  struct attach_arguments *copy = argument;
  copy->mount = sys_open_tree(AT_FDCWD, copy->path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_SYMLINK_NOFOLLOW);
  return copy->mount < 0 ? fail(copy->failure, "copy mount %s", copy->path) : 0;
}

int upper_copy(int own_mounts, int host_mounts, const char *path, struct failure *failure) {
  struct attach_arguments arguments = {-1, path, failure};
  if (in_host(own_mounts, host_mounts, copy_action, &arguments, failure) < 0) return -1;
  return arguments.mount;
}

static int publish_action(void *argument) {
  const struct attach_arguments *publish = argument;
  char source[64];
  (void)format(source, sizeof(source), "/proc/self/fd/%d", publish->mount);
  if (mkdir("/run/netns", 0755) < 0 && errno != EEXIST) return fail(publish->failure, "make /run/netns");
  AUTO_CLOSE int file = open(publish->path, O_RDONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0444);
  if (file < 0) return fail(publish->failure, "make %s", publish->path);
  if (mount(source, publish->path, NULL, MS_BIND, NULL) < 0) {
    (void)unlink(publish->path);
    return fail(publish->failure, "mount the network namespace at %s", publish->path);
  }
  return 0;
}

int netns_publish(int own_mounts, int host_mounts, int netns, const char *name, struct failure *failure) {
  char path[NETNS_MAX_NAME + 32];
  if (format(path, sizeof(path), "/run/netns/%s", name) < 0) return fail(failure, "name network namespace %s", name);
  struct attach_arguments arguments = {netns, path, failure};
  return in_host(own_mounts, host_mounts, publish_action, &arguments, failure);
}

static int withdraw_action(void *argument) {
  const struct attach_arguments *target = argument;
  if (unmount_action(argument) < 0) return -1;
  if (unlink(target->path) < 0 && errno != ENOENT) return fail(target->failure, "remove %s", target->path);
  return 0;
}

int netns_withdraw(int own_mounts, int host_mounts, const char *name, struct failure *failure) {
  char path[NETNS_MAX_NAME + 32];
  if (format(path, sizeof(path), "/run/netns/%s", name) < 0) return fail(failure, "name network namespace %s", name);
  struct attach_arguments arguments = {-1, path, failure};
  return in_host(own_mounts, host_mounts, withdraw_action, &arguments, failure);
}

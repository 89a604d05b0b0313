#include "kernel_api.h"

#include "house.h"

#include <errno.h>
#include <linux/magic.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "cell_files.h"
#include "io.h"
#include "mounts.h"

enum { LOCK_ATTEMPTS = 500 };

/* The sq-host of a squashd that was just killed needs a moment to notice. */
static int take_lock(struct house *house, const char *run_dir, struct failure *failure) {
  char path[4096];
  if (format(path, sizeof(path), "%s/lock", run_dir) < 0) return fail(failure, "name the lock file");
  house->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (house->lock < 0) return fail(failure, "open %s", path);
  for (int attempt = 0; attempt < LOCK_ATTEMPTS; attempt++) {
    if (flock(house->lock, LOCK_EX | LOCK_NB) == 0) return 0;
    if (errno != EWOULDBLOCK) return fail(failure, "lock %s", path);
    (void)poll(NULL, 0, 10);
  }
  errno = EBUSY;
  return fail(failure, "lock %s, which another squashd holds", path);
}

static int bind(const char *source, const char *target, struct failure *failure) {
  if (mkdir(target, 0755) < 0 && errno != EEXIST) return fail(failure, "make %s", target);
  if (mount(source, target, NULL, MS_BIND, NULL) < 0) return fail(failure, "bind %s", source);
  return 0;
}

/* In the new namespace: a tmpfs root with /dev, /proc, /sys, /run and /data of the host, and places for layers and scratch mounts. */
static int build(const char *run_dir, const char *data_dir, struct failure *failure) {
  static const char *const directories[] = {"l", "t", "run", "data", "dev", "proc", "sys"};
  const struct mount_option options[] = {{"size", "4m"}, {"mode", "0755"}};
  if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) return fail(failure, "make mounts private");
  /* Opened first: the new root is mounted over run_dir, which may contain data_dir. */
  AUTO_CLOSE int run = sys_open_tree(AT_FDCWD, run_dir, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
  AUTO_CLOSE int data = sys_open_tree(AT_FDCWD, data_dir, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
  if (run < 0 || data < 0) return fail(failure, "copy mounts of %s and %s", run_dir, data_dir);
  AUTO_CLOSE int root = mount_new("tmpfs", options, ARRAY_LEN(options), MOUNT_ATTR_NOSUID, failure);
  if (root < 0 || mount_attach(root, run_dir, failure) < 0) return -1;
  if (fchdir(root) < 0) return fail(failure, "enter the new root");
  for (size_t i = 0; i < ARRAY_LEN(directories); i++)
    if (mkdirat(root, directories[i], 0755) < 0) return fail(failure, "make /%s", directories[i]);
  if (mount_attach(run, "run", failure) < 0 || mount_attach(data, "data", failure) < 0) return -1;
  if (bind("/dev", "dev", failure) < 0 || bind("/proc", "proc", failure) < 0 || bind("/sys", "sys", failure) < 0) return -1;
  if (sys_pivot_root(".", ".") < 0) return fail(failure, "pivot to the new root");
  if (umount2(".", MNT_DETACH) < 0 || chdir("/") < 0) return fail(failure, "detach the host's files");
  return make_templates(failure);
}

/* A namespace's file can only be pinned on a mount that propagates nowhere: run_dir becomes one. */
static int pin(const struct house *house, const char *path, struct failure *failure) {
  char source[64];
  (void)format(source, sizeof(source), "/proc/self/fd/%d", house->own_mounts);
  if (enter_mounts(house->host_mounts, failure) < 0) return -1;
  int result = 0;
  AUTO_CLOSE int file = open(path, O_RDONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0400);
  if (file < 0 || mount(source, path, NULL, MS_BIND, NULL) < 0) result = fail(failure, "pin the mount namespace at %s", path);
  if (enter_mounts(house->own_mounts, failure) < 0) _exit(70);
  return result;
}

struct place {
  const char *run_dir, *data_dir, *pin; /* paths */
};

static int make_mounts(struct house *house, const struct place *place, struct failure *failure) {
  if (unshare(CLONE_NEWNS) < 0) return fail(failure, "make a mount namespace");
  if (build(place->run_dir, place->data_dir, failure) < 0) return -1;
  house->own_mounts = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);
  return house->own_mounts < 0 ? fail(failure, "open the new mount namespace") : pin(house, place->pin, failure);
}

/*
 * A namespace may be pinned in an older one only, which the kernel tells by their numbers. Since Linux 6.18 each processor takes these from a
 * store of its own, so that a new namespace may have a lower number than the host's, where that is not the machine's first. The processor
 * that made the host's has none but higher ones, so each is tried, also those that squashd does not run on.
 */
static int make_pinned(struct house *house, const struct place *place, struct failure *failure) {
  cpu_set_t allowed;
  int result = make_mounts(house, place, failure);
  if (result == 0 || failure->code != EINVAL || sched_getaffinity(0, sizeof(allowed), &allowed) < 0) return result;
  for (int cpu = 0; result < 0 && failure->code == EINVAL && cpu < CPU_SETSIZE; cpu++) {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    if (sched_setaffinity(0, sizeof(one), &one) < 0) continue; /* not there, or not for us */
    close_fd(&house->own_mounts);
    *failure = (struct failure){0};
    if (enter_mounts(house->host_mounts, failure) < 0) return -1;
    result = make_mounts(house, place, failure);
  }
  if (sched_setaffinity(0, sizeof(allowed), &allowed) < 0 && result == 0) return fail(failure, "run on all processors again");
  return result;
}

static int make_private(const char *run_dir, struct failure *failure) {
  if (mount(run_dir, run_dir, NULL, MS_BIND, NULL) < 0) return fail(failure, "bind %s", run_dir);
  if (mount(NULL, run_dir, NULL, MS_PRIVATE, NULL) < 0) return fail(failure, "make %s private", run_dir);
  return 0;
}

static bool is_namespace(const char *path) {
  struct statfs info;
  return statfs(path, &info) == 0 && (unsigned long)info.f_type == NSFS_MAGIC;
}

int house_open(struct house *house, const char *run_dir, const char *data_dir, struct failure *failure) {
  char path[4096];
  if (format(path, sizeof(path), "%s/mounts", run_dir) < 0) return fail(failure, "name the pinned namespace");
  house->host_mounts = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);
  if (house->host_mounts < 0) return fail(failure, "open the host's mount namespace");
  if (take_lock(house, run_dir, failure) < 0) return -1;
  house->inherited = is_namespace(path);
  if (house->inherited) {
    house->own_mounts = open(path, O_RDONLY | O_CLOEXEC);
    if (house->own_mounts < 0) return fail(failure, "open %s", path);
    return enter_mounts(house->own_mounts, failure);
  }
  if (make_private(run_dir, failure) < 0) return -1;
  return make_pinned(house, &(const struct place){run_dir, data_dir, path}, failure);
}

int house_close(const struct house *house, const char *run_dir, struct failure *failure) {
  char path[4096];
  if (format(path, sizeof(path), "%s/mounts", run_dir) < 0) return fail(failure, "name the pinned namespace");
  if (enter_mounts(house->host_mounts, failure) < 0) return -1;
  int result = 0;
  if (umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW) < 0 && errno != EINVAL && errno != ENOENT)
    result = fail(failure, "unpin %s", path);
  if (result == 0) (void)unlink(path);
  if (result == 0 && umount2(run_dir, MNT_DETACH | UMOUNT_NOFOLLOW) < 0 && errno != EINVAL)
    result = fail(failure, "unmount %s", run_dir);
  if (enter_mounts(house->own_mounts, failure) < 0) _exit(70);
  return result;
}

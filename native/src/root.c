#include "kernel_api.h"

#include "root.h"

#include <errno.h>
#include <linux/magic.h>
#include <sched.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/mount.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>

#include "cell_files.h"
#include "cell.h"
#include "io.h"
#include "layers.h"
#include "mounts.h"
#include "root_attributes.h"
#include "upper.h"
#include "userns.h"

static int open_namespace(pid_t pid, const char *kind, struct failure *failure) {
  char path[64];
  (void)format(path, sizeof(path), "/proc/%d/ns/%s", pid, kind);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return fail(failure, "open %s", path);
  return fd;
}

/*
 * A copy of a layer that shows its owners as the cell's. Those of a module are numbers from 0 on, which the cell's user namespace maps; a snapshot
 * of a subvolume has those of the cell that wrote it.
 */
static int copy_layer(const struct root_plan *plan, uint32_t i, int userns, struct failure *failure) {
  char path[320];
  if (layer_path(plan->layers[i], path, sizeof(path), failure) < 0) return -1;
  if (plan->owners[i] == 0) return mount_clone_idmapped(path, userns, failure);
  if (plan->owners[i] == plan->uid_base) return mount_clone(path, 0, failure);
  AUTO_CLOSE int shift = userns_shift(plan->owners[i], plan->uid_base, IDS_PER_CELL, failure);
  return shift < 0 ? -1 : mount_clone_idmapped(path, shift, failure);
}

/* Attaches a copy of every layer, shifted into the cell's user namespace, at /t/0, /t/1, …, and appends those paths to `lower`. */
static int attach_layers(const struct root_plan *plan, int userns, char *lower, size_t size, struct failure *failure) {
  size_t used = 0;
  for (uint32_t i = 0; i < plan->layer_count; i++) {
    char target[32];
    (void)format(target, sizeof(target), "/t/%u", i);
    if (format(lower + used, size - used, "%s%s", i == 0 ? "" : ":", target) < 0) return fail(failure, "name all layers");
    used += strlen(lower + used);
    AUTO_CLOSE int copy = copy_layer(plan, i, userns, failure);
    if (copy < 0) return -1;
    if (mkdir(target, 0755) < 0) return fail(failure, "make %s", target);
    if (mount_attach(copy, target, failure) < 0) return -1;
  }
  return 0;
}

/*
 * A detached overlay. Its parts are attached below a tmpfs at /t only while it is made, and go in one stroke: the overlay holds references
 * of its own. Works alike on every kernel since 5.19, where passing the parts as descriptors needs 6.13.
 */
static int make_overlay(int own_mounts, int host_mounts, const struct root_plan *plan, int userns, int *top, struct failure *failure) {
  char lower[2048], options[3072];
  AUTO_CLOSE int upper = upper_copy(own_mounts, host_mounts, plan->upper, failure);
  if (upper < 0) return -1;
  if (mkdir("/t/u", 0755) < 0 || mkdir("/t/m", 0755) < 0) return fail(failure, "make mount points");
  if (mount_attach(upper, "/t/u", failure) < 0 || attach_layers(plan, userns, lower, sizeof(lower), failure) < 0) return -1;
  *top = open("/t/0", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (*top < 0) return fail(failure, "open the topmost layer");
  (void)format(options, sizeof(options),
               "lowerdir=%s,upperdir=/t/u/data,workdir=/t/u/work,index=off,metacopy=off,redirect_dir=off", lower);
  if (mount("overlay", "/t/m", "overlay", MS_NODEV | MS_NOSUID, options) < 0) return fail(failure, "mount overlay");
  struct statvfs state;
  if (statvfs("/t/m", &state) < 0) return fail(failure, "look at the overlay");
  if ((state.f_flag & ST_RDONLY) != 0) { /* overlayfs does this without an error when it cannot use the upper */
    errno = EROFS;
    return fail(failure, "mount overlay writable");
  }
  int overlay = sys_open_tree(AT_FDCWD, "/t/m", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
  if (overlay < 0) return fail(failure, "copy the overlay mount");
  return overlay;
}

static int stage_overlay(int own_mounts, int host_mounts, const struct root_plan *plan, int userns, int *top, struct failure *failure) {
  const struct mount_option small[] = {{"size", "1m"}, {"mode", "0700"}};
  AUTO_CLOSE int scratch = mount_new("tmpfs", small, ARRAY_LEN(small), 0, failure);
  if (scratch < 0 || mount_attach(scratch, "/t", failure) < 0) return -1;
  int overlay = make_overlay(own_mounts, host_mounts, plan, userns, top, failure);
  if (umount2("/t", MNT_DETACH) < 0) _exit(70); /* staying would leak the parts into every later cell */
  return overlay;
}

/* Files below the new root are the image's or, after a recovery, the sandbox's: no link is ever followed and no mount crossed. */
enum { SAFELY = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV };

static int open_directory(int root, const char *name, struct failure *failure) {
  if (mkdirat(root, name, 0755) < 0 && errno != EEXIST) return fail(failure, "make /%s in the sandbox", name);
  int fd = sys_openat2(root, name, O_PATH | O_DIRECTORY | O_CLOEXEC, 0, SAFELY);
  if (fd < 0) return fail(failure, "open /%s in the sandbox, which must be a plain directory", name);
  return fd;
}

/* Writes a small file. Not being able to is no failure: the image may have anything there. */
static void write_small_file(int root, const char *path, const char *text) {
  AUTO_CLOSE int fd = sys_openat2(root, path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0644, SAFELY);
  struct stat info;
  if (fd < 0 || fstat(fd, &info) < 0 || !S_ISREG(info.st_mode) || info.st_nlink != 1) return;
  ssize_t written = write(fd, text, strlen(text));
  (void)written;
}

/* In place of whatever the image has, which often is a link into a directory that only a booted system fills. */
static void write_resolver(int root, uint32_t server) {
  static const char name[] = "resolv.conf";
  char text[128];
  AUTO_CLOSE int directory = sys_openat2(root, "etc", O_PATH | O_DIRECTORY | O_CLOEXEC, 0, SAFELY);
  if (directory < 0) return;
  (void)unlinkat(directory, name, 0);
  AUTO_CLOSE int fd = openat(directory, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
  (void)format(text, sizeof(text), "nameserver %u.%u.%u.%u\n", server >> 24, server >> 16 & 255, server >> 8 & 255, server & 255);
  ssize_t written = fd < 0 ? 0 : write(fd, text, strlen(text));
  (void)written;
}

/* Programs take it for the machine's own, so that no two sandboxes may share that of an image or of what they were forked from. */
static void write_machine_id(int root) {
  uint8_t random[16];
  char text[2 * sizeof(random) + 2];
  if (getrandom(random, sizeof(random), 0) != (ssize_t)sizeof(random)) return;
  for (size_t i = 0; i < sizeof(random); i++) (void)format(text + 2 * i, 3, "%02x", random[i]);
  text[2 * sizeof(random)] = '\n';
  text[2 * sizeof(random) + 1] = '\0';
  write_small_file(root, "etc/machine-id", text);
}

static void write_names(int root, const char *hostname) {
  char text[512];
  if (format(text, sizeof(text), "%s\n", hostname) == 0) write_small_file(root, "etc/hostname", text);
  if (format(text, sizeof(text), "127.0.0.1\tlocalhost %s\n::1\tlocalhost ip6-localhost ip6-loopback\n", hostname) == 0)
    write_small_file(root, "etc/hosts", text);
  write_machine_id(root);
}

/* In the cell's mount namespace: puts the overlay on top of the old root, moves /proc, /dev and /sys over, and makes it the root. */
static int swap_root(int overlay, struct failure *failure) {
  static const char *const kept[] = {"proc", "dev", "sys"};
  AUTO_CLOSE int old = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (old < 0) return fail(failure, "open the cell's root");
  if (mount_attach_at(overlay, old, "the cell's root", failure) < 0) return -1;
  for (size_t i = 0; i < ARRAY_LEN(kept); i++) {
    AUTO_CLOSE int target = open_directory(overlay, kept[i], failure);
    if (target < 0) return -1;
    if (sys_move_mount(old, kept[i], target, "", MOVE_MOUNT_T_EMPTY_PATH) < 0)
      return fail(failure, "move /%s into the sandbox", kept[i]);
  }
  if (fchdir(overlay) < 0 || sys_pivot_root(".", ".") < 0) return fail(failure, "pivot to the sandbox's root");
  if (umount2(".", MNT_DETACH) < 0 || chdir("/") < 0) return fail(failure, "detach the old root");
  return 0;
}

/* Overlayfs shows the upper's own root directory, which for a new one is nobody's yet. */
static int copy_attributes(int overlay, int top, uint32_t uid_base, struct failure *failure) {
  struct stat root;
  AUTO_CLOSE int directory = openat(overlay, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (directory < 0 || fstat(top, &root) < 0) return fail(failure, "look at the topmost layer");
  const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, root.st_mtim};
  if (fchown(directory, root.st_uid, root.st_gid) < 0 || root_copy_attributes(top, directory, uid_base, failure) < 0 ||
      fchmod(directory, root.st_mode & 07777) < 0 || futimens(directory, times) < 0)
    return fail(failure, "give the root directory its attributes");
  return 0;
}

static int enter_and_swap(int cell_mounts, int overlay, const struct root_plan *plan, int top, struct failure *failure) {
  if (enter_mounts(cell_mounts, failure) < 0) return -1;
  /* As the cell's root, so that what is made belongs to it; overlayfs itself works with its mounter's rights. */
  (void)setfsgid(plan->uid_base);
  (void)setfsuid(plan->uid_base);
  int result = swap_root(overlay, failure);
  if (result == 0 && plan->named) write_names(overlay, plan->hostname);
  if (result == 0 && plan->named && plan->nameserver != 0) write_resolver(overlay, plan->nameserver);
  (void)setfsuid(0);
  (void)setfsgid(0);
  return result == 0 && plan->fresh ? copy_attributes(overlay, top, plan->uid_base, failure) : result;
}

/*
 * Takes the root that a cell has away from it, and with that the overlay on an upper, which must not be used by two at a time. What runs in
 * the cell is squash's own, and has nothing open there.
 */
static int leave_root(int own_mounts, int cell_mounts, const struct root_plan *plan, struct failure *failure) {
  AUTO_CLOSE int empty = make_empty_root(failure);
  if (empty < 0 || enter_mounts(cell_mounts, failure) < 0) return -1;
  int result = swap_root(empty, failure);
  if (result == 0 && plan->fresh) result = renew_shared_memory(failure);
  struct failure back = {0};
  if (enter_mounts(own_mounts, &back) < 0) _exit(70);
  return result;
}

static int set_hostname(const struct root_plan *plan, int own_uts, struct failure *failure) {
  AUTO_CLOSE int uts = open_namespace(plan->pid, "uts", failure);
  if (uts < 0) return -1;
  if (setns(uts, CLONE_NEWUTS) < 0) return fail(failure, "enter the cell's uts namespace");
  int result = sethostname(plan->hostname, strlen(plan->hostname));
  if (result < 0) (void)fail(failure, "set the host name");
  if (setns(own_uts, CLONE_NEWUTS) < 0) _exit(70); /* the next sethostname would be the host's */
  return result;
}

int root_give(int own_mounts, int host_mounts, const struct root_plan *plan, struct failure *failure) {
  AUTO_CLOSE int own_uts = open("/proc/self/ns/uts", O_RDONLY | O_CLOEXEC);
  AUTO_CLOSE int userns = open_namespace(plan->pid, "user", failure);
  AUTO_CLOSE int cell_mounts = open_namespace(plan->pid, "mnt", failure);
  if (own_uts < 0 || userns < 0 || cell_mounts < 0) return fail(failure, "open namespaces");
  if (plan->again && leave_root(own_mounts, cell_mounts, plan, failure) < 0) return -1;
  AUTO_CLOSE int top = -1;
  AUTO_CLOSE int overlay = stage_overlay(own_mounts, host_mounts, plan, userns, &top, failure);
  if (overlay < 0) return -1;
  int result = enter_and_swap(cell_mounts, overlay, plan, top, failure);
  struct failure back = {0};
  if (enter_mounts(own_mounts, &back) < 0) _exit(70);
  return result < 0 || plan->again ? result : set_hostname(plan, own_uts, failure);
}

#include "kernel_api.h"

#include "subvolumes.h"

#include <errno.h>
#include <limits.h>
#include <linux/btrfs.h>
#include <linux/btrfs_tree.h>
#include <linux/magic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "io.h"
#include "mounts.h"
#include "upper.h"

enum { SAFELY = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS };
enum { ATTRIBUTES = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOATIME };

static bool is_btrfs(int directory) {
  struct statfs info;
  return fstatfs(directory, &info) == 0 && (unsigned long)info.f_type == BTRFS_SUPER_MAGIC;
}

/* A detached mount of the pool's filesystem. In the host's namespace, with `data` the data directory. */
static int make_pool(int data, const char *data_dir, const char *image, struct failure *failure) {
  char path[PATH_MAX], device[32];
  if (image[0] != '\0') {
    if (format(path, sizeof(path), "%s/%s", data_dir, image) < 0) return fail(failure, "name the pool's image");
    /* A second device for one filesystem would be its end: where the last one still lives, on what was not closed yet, it is taken again. */
    int found = loop_find(path, device, sizeof(device));
    AUTO_CLOSE int loop = found >= 0 ? found : loop_attach(path, 1, device, sizeof(device), failure);
    if (loop < 0) return -1;
    /* discard gives the image's blocks back; the ratio leaves room for metadata, without which a full pool cannot even delete */
    const struct mount_option options[] = {{"source", device}, {"discard", "async"}, {"metadata_ratio", "8"}};
    return mount_new("btrfs", options, ARRAY_LEN(options), ATTRIBUTES, failure);
  }
  errno = EINVAL;
  if (!is_btrfs(data)) return fail(failure, "use %s as a pool, which is not on a btrfs", data_dir);
  if (format(path, sizeof(path), "%s/pool", data_dir) < 0) return fail(failure, "name the pool");
  return mount_clone(path, ATTRIBUTES, failure);
}

static int prepare_pool(int pool, struct failure *failure) {
  if (fchmodat(pool, ".", 0700, 0) < 0) return fail(failure, "close the pool to others");
  if (mkdirat(pool, "u", 0700) < 0 && errno != EEXIST) return fail(failure, "make the pool's directory of uppers");
  if (mkdirat(pool, "s", 0700) < 0 && errno != EEXIST) return fail(failure, "make the pool's directory of snapshots");
  struct btrfs_ioctl_quota_ctl_args quota = {.cmd = BTRFS_QUOTA_CTL_ENABLE};
  AUTO_CLOSE int directory = openat(pool, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC); /* what a mount gives takes no ioctl */
  if (directory < 0 || ioctl(directory, BTRFS_IOC_QUOTA_CTL, &quota) < 0) return fail(failure, "turn the pool's quotas on");
  return 0;
}

static int mount_in_host(const char *data_dir, const char *image, struct failure *failure) {
  char path[PATH_MAX];
  if (format(path, sizeof(path), "%s/pool", data_dir) < 0) return fail(failure, "name the pool");
  AUTO_CLOSE int data = open(data_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (data < 0) return fail(failure, "open %s", data_dir);
  if (mkdirat(data, "pool", 0700) < 0 && errno != EEXIST) return fail(failure, "make %s", path);
  AUTO_CLOSE int plain = sys_openat2(data, "pool", O_PATH | O_DIRECTORY | O_CLOEXEC, 0, SAFELY | RESOLVE_NO_XDEV);
  if (plain < 0 && errno != EXDEV) return fail(failure, "open %s", path);
  if (plain < 0) { /* mounted already */
    AUTO_CLOSE int mounted = openat(data, "pool", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (mounted < 0 || !is_btrfs(mounted)) return fail(failure, "use %s, on which something else is mounted", path);
    return prepare_pool(mounted, failure);
  }
  AUTO_CLOSE int mount = make_pool(data, data_dir, image, failure);
  if (mount < 0 || prepare_pool(mount, failure) < 0) return -1;
  return mount_attach(mount, path, failure);
}

int pool_mount(int own_mounts, int host_mounts, const char *data_dir, const char *image, struct failure *failure) {
  if (enter_mounts(host_mounts, failure) < 0) return -1;
  int result = mount_in_host(data_dir, image, failure);
  struct failure back = {0};
  if (enter_mounts(own_mounts, &back) < 0) _exit(70);
  return result;
}

int pool_unmount(int own_mounts, int host_mounts, const char *data_dir, struct failure *failure) {
  char path[PATH_MAX];
  if (format(path, sizeof(path), "%s/pool", data_dir) < 0) return fail(failure, "name the pool");
  return upper_unmount(own_mounts, host_mounts, path, failure);
}

int pool_open(int own_mounts, int host_mounts, const char *data_dir, struct failure *failure) {
  char path[PATH_MAX];
  if (format(path, sizeof(path), "%s/pool", data_dir) < 0) return fail(failure, "name the pool");
  if (enter_mounts(host_mounts, failure) < 0) return -1;
  int pool = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  int code = errno;
  struct failure back = {0};
  if (enter_mounts(own_mounts, &back) < 0) _exit(70);
  errno = code;
  if (pool < 0) return fail(failure, "open %s", path);
  if (is_btrfs(pool)) return pool;
  close_fd(&pool);
  errno = ENODEV;
  return fail(failure, "use %s, where no pool is mounted", path);
}

/* Opens the directory that a name is in, and points `leaf` at its last part. */
static int open_folder(int pool, const char *name, const char **leaf, struct failure *failure) {
  const char folder[2] = {name[0], '\0'};
  errno = EINVAL;
  if ((name[0] != 'u' && name[0] != 's') || name[1] != '/' || name[2] == '\0' || name[2] == '.' || strchr(name + 2, '/') != NULL ||
      strlen(name) > SUBVOLUME_NAME_LIMIT)
    return fail(failure, "use %s as the name of a subvolume", name);
  *leaf = name + 2;
  int fd = sys_openat2(pool, folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0, SAFELY | RESOLVE_NO_XDEV);
  return fd < 0 ? fail(failure, "open %s/ of the pool", folder) : fd;
}

static int open_subvolume(int pool, const char *name, struct failure *failure) {
  const char *leaf;
  AUTO_CLOSE int folder = open_folder(pool, name, &leaf, failure);
  if (folder < 0) return -1;
  struct stat info;
  int fd = sys_openat2(folder, leaf, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0, SAFELY);
  if (fd < 0) return fail(failure, "open subvolume %s", name);
  if (fstat(fd, &info) == 0 && info.st_ino == BTRFS_FIRST_FREE_OBJECTID) return fd;
  close_fd(&fd);
  errno = ENOTDIR;
  return fail(failure, "use %s, which is no subvolume", name);
}

/* 0 where there is none. */
static uint64_t subvolume_number(int subvolume, struct failure *failure) {
  struct btrfs_ioctl_ino_lookup_args lookup = {.objectid = BTRFS_FIRST_FREE_OBJECTID};
  if (ioctl(subvolume, BTRFS_IOC_INO_LOOKUP, &lookup) == 0) return lookup.treeid;
  (void)fail(failure, "look a subvolume's number up");
  return 0;
}

static int limit(int subvolume, uint64_t bytes, struct failure *failure) {
  struct btrfs_ioctl_qgroup_limit_args args = {.lim = {.flags = BTRFS_QGROUP_LIMIT_MAX_RFER, .max_rfer = bytes}};
  if (ioctl(subvolume, BTRFS_IOC_QGROUP_LIMIT, &args) < 0) return fail(failure, "limit a subvolume to %llu bytes", (unsigned long long)bytes);
  return 0;
}

int subvolume_create(int pool, const char *name, uint64_t bytes, struct failure *failure) {
  struct btrfs_ioctl_vol_args args = {0};
  const char *leaf;
  if (subvolume_remove(pool, name, failure) < 0) return -1;
  AUTO_CLOSE int folder = open_folder(pool, name, &leaf, failure);
  if (folder < 0) return -1;
  (void)format(args.name, sizeof(args.name), "%s", leaf);
  if (ioctl(folder, BTRFS_IOC_SUBVOL_CREATE, &args) < 0) return fail(failure, "make subvolume %s", name);
  AUTO_CLOSE int made = open_subvolume(pool, name, failure);
  return made < 0 ? -1 : limit(made, bytes, failure);
}

int subvolume_snapshot(int pool, const char *source, const char *name, struct failure *failure) {
  struct btrfs_ioctl_vol_args_v2 args = {.flags = BTRFS_SUBVOL_RDONLY};
  const char *leaf;
  AUTO_CLOSE int origin = open_subvolume(pool, source, failure);
  AUTO_CLOSE int folder = origin < 0 ? -1 : open_folder(pool, name, &leaf, failure);
  if (folder < 0) return -1;
  args.fd = origin;
  (void)format(args.name, sizeof(args.name), "%s", leaf);
  if (ioctl(folder, BTRFS_IOC_SNAP_CREATE_V2, &args) < 0) return fail(failure, "make snapshot %s of subvolume %s", name, source);
  return 0;
}

/* Kernels before 6.11 keep a subvolume's account when it is gone; those since then say EBUSY here and remove it themselves. */
static void forget_account(int pool, uint64_t number) {
  struct btrfs_ioctl_qgroup_create_args args = {.create = 0, .qgroupid = number};
  (void)ioctl(pool, BTRFS_IOC_QGROUP_CREATE, &args);
}

int subvolume_remove(int pool, const char *name, struct failure *failure) {
  struct btrfs_ioctl_vol_args args = {0};
  struct failure absent = {0};
  const char *leaf;
  AUTO_CLOSE int folder = open_folder(pool, name, &leaf, failure);
  if (folder < 0) return -1;
  AUTO_CLOSE int found = open_subvolume(pool, name, &absent);
  if (found < 0 && absent.code == ENOENT) return 0;
  errno = absent.code;
  uint64_t number = found < 0 ? 0 : subvolume_number(found, failure);
  if (number == 0) return fail(failure, "remove %s", name);
  (void)format(args.name, sizeof(args.name), "%s", leaf);
  if (ioctl(folder, BTRFS_IOC_SNAP_DESTROY, &args) < 0 && errno != ENOENT) return fail(failure, "remove subvolume %s", name);
  forget_account(pool, number);
  return 0;
}

int pool_flush(int pool, struct failure *failure) {
  return ioctl(pool, BTRFS_IOC_SYNC) < 0 ? fail(failure, "write the pool to the disk") : 0;
}

int subvolume_use(int pool, const char *name, uint64_t *bytes, struct failure *failure) {
  AUTO_CLOSE int subvolume = open_subvolume(pool, name, failure);
  uint64_t number = subvolume < 0 ? 0 : subvolume_number(subvolume, failure);
  if (number == 0) return -1;
  struct btrfs_ioctl_search_args search = {.key = {.tree_id = BTRFS_QUOTA_TREE_OBJECTID,
                                                   .min_type = BTRFS_QGROUP_INFO_KEY,
                                                   .max_type = BTRFS_QGROUP_INFO_KEY,
                                                   .min_offset = number,
                                                   .max_offset = number,
                                                   .max_transid = UINT64_MAX,
                                                   .nr_items = 1}};
  if (ioctl(pool, BTRFS_IOC_TREE_SEARCH, &search) < 0) return fail(failure, "read the account of subvolume %s", name);
  struct btrfs_ioctl_search_header header;
  struct btrfs_qgroup_info_item item;
  memcpy(&header, search.buf, sizeof(header));
  errno = ENODATA;
  if (search.key.nr_items != 1 || header.len < sizeof(item)) return fail(failure, "find the account of subvolume %s", name);
  memcpy(&item, search.buf + sizeof(header), sizeof(item));
  *bytes = item.rfer; /* little-endian, as all machines that this runs on are */
  return 0;
}

/* A mount can only be copied from within its namespace. */
int subvolume_copy(int own_mounts, int host_mounts, int pool, const char *name, const char *directory, struct failure *failure) {
  AUTO_CLOSE int subvolume = open_subvolume(pool, name, failure);
  AUTO_CLOSE int inner = subvolume < 0 ? -1 : sys_openat2(subvolume, directory, O_PATH | O_DIRECTORY | O_CLOEXEC, 0, SAFELY | RESOLVE_NO_XDEV);
  if (inner < 0) return fail(failure, "open %s of subvolume %s", directory, name);
  if (enter_mounts(host_mounts, failure) < 0) return -1;
  int mount = sys_open_tree(inner, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);
  int code = errno;
  struct failure back = {0};
  if (enter_mounts(own_mounts, &back) < 0) _exit(70);
  errno = code;
  return mount < 0 ? fail(failure, "copy the mount of subvolume %s", name) : mount;
}

#include "kernel_api.h"

#include "capture.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#include "erofs.h"
#include "io.h"
#include "merge.h"

enum { LINK_SLOTS = 1 << 16, NAME_LIST = 64 * 1024, VALUE_LIMIT = 64 * 1024 };

/* A file that has several names, and the inode that it was given. */
struct linked {
  uint64_t device, number;
  uint32_t inode;
  struct linked *next; /* in its slot */
  struct linked *older; /* of all */
};

struct walk {
  const struct captured_root *roots;
  struct erofs_image *image;
  struct linked *links[LINK_SLOTS];
  struct linked *newest; /* so that nobody looks through slots at the end, most of which have never been memory */
  char names[NAME_LIST];
  uint8_t value[VALUE_LIMIT];
};

/* Attributes of `name` in the working directory, which is the one that it lies in. */
static int add_attributes(struct walk *walk, uint32_t root, const char *name, uint32_t inode, struct failure *failure) {
  ssize_t length = llistxattr(name, walk->names, sizeof(walk->names));
  if (length < 0) return errno == ENOTSUP ? 0 : fail(failure, "list the attributes of %s", name);
  for (const char *key = walk->names; key < walk->names + length; key += strlen(key) + 1) {
    errno = EXDEV;
    if (leads_elsewhere(&walk->roots[root], key)) return fail(failure, "keep %s, which is %s", name, key);
    if (!is_captured_attribute(&walk->roots[root], key)) continue;
    ssize_t size = lgetxattr(name, key, walk->value, sizeof(walk->value));
    if (size < 0) return fail(failure, "read attribute %s of %s", key, name);
    if (!shift_owners(&walk->roots[root], key, walk->value, (size_t)size)) continue;
    if (erofs_add_attribute(walk->image, inode, key, walk->value, (size_t)size, failure) < 0) return -1;
  }
  return 0;
}

/* A device's number as it is on disk: the kernel's own form, of which an upper has no other than 0/0. */
static uint32_t device_of(const struct stat *info) {
  uint32_t high = major(info->st_rdev), low = minor(info->st_rdev);
  return S_ISCHR(info->st_mode) || S_ISBLK(info->st_mode) ? (low & 0xff) | high << 8 | (low & ~UINT32_C(0xff)) << 12 : 0;
}

static struct erofs_inode inode_of(const struct walk *walk, uint32_t root, const struct stat *info) {
  struct erofs_inode inode = {.size = S_ISREG(info->st_mode) ? (uint64_t)info->st_size : 0, .mode = (uint16_t)info->st_mode, .nlink = 1};
  inode.mtime = info->st_mtim.tv_sec;
  inode.mtime_nsec = (uint32_t)info->st_mtim.tv_nsec;
  inode.uid = captured_id(&walk->roots[root], info->st_uid);
  inode.gid = captured_id(&walk->roots[root], info->st_gid);
  if (walk->roots[root].exact) inode.device = device_of(info);
  return inode;
}

static int write_content(struct walk *walk, int directory, const char *name, uint32_t inode, const struct stat *info, struct failure *failure) {
  if (S_ISLNK(info->st_mode)) {
    char target[PATH_MAX];
    ssize_t size = readlinkat(directory, name, target, sizeof(target));
    if (size < 0) return fail(failure, "read link %s", name);
    return erofs_write_link(walk->image, inode, target, (size_t)size, failure);
  }
  if (!S_ISREG(info->st_mode) || info->st_size == 0) return 0;
  AUTO_CLOSE int file = openat(directory, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
  if (file < 0) return fail(failure, "open %s", name);
  return erofs_write_file(walk->image, inode, file, failure);
}

static struct linked **link_slot(struct walk *walk, const struct stat *info) {
  uint64_t mixed = (info->st_ino ^ (uint64_t)info->st_dev << 40) * UINT64_C(0x9E3779B97F4A7C15);
  struct linked **slot = &walk->links[mixed >> 48];
  while (*slot != NULL && ((*slot)->number != info->st_ino || (*slot)->device != info->st_dev)) slot = &(*slot)->next;
  return slot;
}

/* Adds whatever is no directory. Returns its inode, or -1. */
static int64_t add_leaf(struct walk *walk, const struct level *level, uint32_t at, const char *name, const struct stat *info,
                        struct failure *failure) {
  struct linked **slot = info->st_nlink > 1 ? link_slot(walk, info) : NULL;
  if (slot != NULL && *slot != NULL) return (*slot)->inode;
  struct erofs_inode inode = inode_of(walk, level->roots[at], info);
  inode.nlink = (uint32_t)info->st_nlink; /* as overlayfs shows it: a name that a layer above hides counts */
  int64_t number = erofs_add_inode(walk->image, &inode, failure);
  if (number < 0) return -1;
  if (add_attributes(walk, level->roots[at], name, (uint32_t)number, failure) < 0) return -1;
  if (write_content(walk, level->directories[at], name, (uint32_t)number, info, failure) < 0) return -1;
  if (slot == NULL) return number;
  *slot = malloc(sizeof(**slot));
  errno = ENOMEM;
  if (*slot == NULL) return fail(failure, "remember the names of %s", name);
  **slot = (struct linked){.device = info->st_dev, .number = info->st_ino, .inode = (uint32_t)number, .older = walk->newest};
  walk->newest = *slot;
  return number;
}

static int capture_directory(struct walk *walk, const struct level *level, uint32_t number, uint32_t depth, struct failure *failure);

static int64_t add_directory(struct walk *walk, const struct level *level, const struct found *found, uint32_t parent, const struct stat *info,
                             struct failure *failure) {
  struct erofs_inode inode = inode_of(walk, level->roots[found->at], info);
  inode.parent = parent;
  inode.nlink = 2;
  int64_t number = erofs_add_inode(walk->image, &inode, failure);
  if (number < 0 || add_attributes(walk, level->roots[found->at], found->name, (uint32_t)number, failure) < 0) return -1;
  erofs_inode_at(walk->image, parent)->nlink++;
  return number;
}

/* Everything directly in a directory; what is in its directories comes after all of its names. */
static int add_names(struct walk *walk, const struct level *level, const struct listing *listing, uint32_t number, struct failure *failure) {
  for (uint32_t i = 0; i < listing->count; i++) {
    const struct found *found = &listing->found[i];
    struct stat info;
    int directory = level->directories[found->at];
    if (fchdir(directory) < 0 || fstatat(directory, found->name, &info, AT_SYMLINK_NOFOLLOW) < 0)
      return fail(failure, "look at %s", found->name);
    int64_t inode = S_ISDIR(info.st_mode) ? add_directory(walk, level, found, number, &info, failure)
                                          : add_leaf(walk, level, found->at, found->name, &info, failure);
    if (inode < 0 || erofs_add_entry(walk->image, found->name, (uint32_t)inode, failure) < 0) return -1;
  }
  return 0;
}

static int descend(struct walk *walk, const struct level *level, const struct found *found, uint32_t inode, uint32_t depth,
                   struct failure *failure) {
  bool closed = false;
  struct level *below = malloc(sizeof(*below)); /* too large for the stack of a deep tree */
  errno = ENOMEM;
  if (below == NULL) return fail(failure, "open directory %s", found->name);
  int result = open_level(level, found->at, found->name, below, &closed, failure);
  if (result == 0 && walk->roots[0].unpacked) closed = is_free_opaque(below->directories[0]);
  if (result == 0 && closed && !walk->roots[0].exact) result = erofs_add_attribute(walk->image, inode, "trusted.overlay.opaque", "y", 1, failure);
  if (result == 0) result = capture_directory(walk, below, inode, depth + 1, failure);
  close_level(below);
  free(below);
  return result;
}

/*
 * Where no other layer has a directory, overlayfs lists one as it is, with its whiteouts, unless it was copied up once. This attribute says so,
 * as overlayfs writes it where it does not know of what. Source: Linux fs/overlayfs/inode.c, ovl_get_inode
 */
static int mark_whiteouts(struct walk *walk, const struct listing *listing, uint32_t number, struct failure *failure) {
  for (uint32_t i = 0; i < listing->count && !walk->roots[0].exact; i++)
    if (listing->found[i].is_whiteout) return erofs_add_attribute(walk->image, number, "trusted.overlay.origin", "", 0, failure);
  return 0;
}

static int capture_directory(struct walk *walk, const struct level *level, uint32_t number, uint32_t depth, struct failure *failure) {
  struct listing listing = {0};
  errno = ELOOP;
  if (depth > DEPTH_LIMIT) return fail(failure, "capture directories that nest deeper than %d", DEPTH_LIMIT);
  uint32_t first = erofs_entry_count(walk->image);
  int result = list_level(level, &listing, failure);
  if (result == 0) result = mark_whiteouts(walk, &listing, number, failure);
  if (result == 0) result = add_names(walk, level, &listing, number, failure);
  if (result == 0) {
    erofs_inode_at(walk->image, number)->first_entry = first;
    erofs_inode_at(walk->image, number)->entry_count = listing.count;
  }
  for (uint32_t i = 0; result == 0 && i < listing.count; i++) {
    uint32_t inode = erofs_entry_inode(walk->image, first + i);
    if (S_ISDIR(erofs_inode_at(walk->image, inode)->mode)) result = descend(walk, level, &listing.found[i], inode, depth, failure);
  }
  forget_listing(&listing);
  return result;
}

static int capture_root(struct walk *walk, uint32_t count, struct failure *failure) {
  static struct level level;
  struct stat info;
  level.count = count;
  for (uint32_t i = 0; i < count; i++) {
    level.directories[i] = walk->roots[i].directory;
    level.roots[i] = i;
  }
  if (fstat(level.directories[0], &info) < 0 || fchdir(level.directories[0]) < 0) return fail(failure, "look at the root directory");
  struct erofs_inode inode = inode_of(walk, 0, &info);
  inode.nlink = 2;
  inode.parent = EROFS_ROOT;
  if (erofs_add_inode(walk->image, &inode, failure) < 0 || add_attributes(walk, 0, ".", EROFS_ROOT, failure) < 0) return -1;
  return capture_directory(walk, &level, EROFS_ROOT, 0, failure);
}

static void forget_walk(struct walk *walk) {
  for (struct linked *link = walk->newest, *older; link != NULL; link = older) {
    older = link->older;
    free(link);
  }
  if (walk->image != NULL) erofs_free(walk->image);
  free(walk);
}

int64_t capture(const struct captured_root *roots, uint32_t count, int file, struct failure *failure) {
  struct walk *walk = calloc(1, sizeof(*walk));
  if (walk == NULL) return fail(failure, "begin an image");
  walk->roots = roots;
  walk->image = erofs_new(file, CAPTURE_INODES);
  int64_t size = walk->image == NULL ? fail(failure, "begin an image") : capture_root(walk, count, failure);
  if (size == 0) size = erofs_finish(walk->image, failure);
  forget_walk(walk);
  return size;
}

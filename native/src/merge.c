#include "kernel_api.h"

#include "merge.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "acl.h"
#include "io.h"

enum { IDS = 65536, NOBODY = 65534 };

uint32_t captured_id(const struct captured_root *root, uint32_t id) {
  uint32_t base = root->uid_base;
  if (root->exact) return id;
  if (id >= base && id - base < IDS) return id - base;
  return id == 0 ? 0 : NOBODY; /* overlayfs makes whiteouts as its mounter, the host's root */
}

static bool is_opaque(int directory) {
  char value[2] = {0};
  return fgetxattr(directory, "trusted.overlay.opaque", value, sizeof(value)) == 1 && value[0] == 'y';
}

static bool is_free_mark(const char *name) { return strncmp(name, "user.overlay.", 13) == 0 || strncmp(name, "user.fuseoverlayfs.", 19) == 0; }

bool is_free_opaque(int directory) {
  const char *names[] = {"user.overlay.opaque", "user.fuseoverlayfs.opaque"};
  for (size_t i = 0; i < ARRAY_LEN(names); i++) {
    char value[2] = {0};
    if (fgetxattr(directory, names[i], value, sizeof(value)) == 1 && value[0] == 'y') return true;
  }
  return false;
}

bool leads_elsewhere(const struct captured_root *root, const char *name) {
  return root->unpacked && (strcmp(name, "user.overlay.redirect") == 0 || strcmp(name, "user.overlay.metacopy") == 0);
}

static uint32_t shift_captured(const void *root, uint32_t id) { return captured_id(root, id); }

bool shift_owners(const struct captured_root *root, const char *name, uint8_t *value, size_t size) {
  if (strcmp(name, "security.capability") == 0) {
    uint32_t owner;
    if (size != 24) return size == 20; /* version 2 has no owner */
    memcpy(&owner, value + 20, sizeof(owner));
    owner = captured_id(root, owner);
    memcpy(value + 20, &owner, sizeof(owner));
    return true;
  }
  if (strncmp(name, "system.posix_acl_", 17) != 0) return true;
  return acl_shift_ids(value, size, shift_captured, root);
}

bool is_captured_attribute(const struct captured_root *root, const char *name) {
  if (strncmp(name, "trusted.", 8) == 0) return root->exact;
  if (root->unpacked && is_free_mark(name)) return false;
  return strncmp(name, "user.", 5) == 0 || strncmp(name, "system.posix_acl_", 17) == 0 || strncmp(name, "security.capability", 20) == 0;
}

void close_level(const struct level *level) {
  for (uint32_t i = 0; i < level->count; i++) close_fd(&level->directories[i]);
}

static int open_beneath(int directory, const char *name) {
  return openat(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

int open_level(const struct level *above, uint32_t first, const char *name, struct level *below, bool *closed, struct failure *failure) {
  *closed = false;
  below->count = 0;
  for (uint32_t at = first; at < above->count && !*closed; at++) {
    struct stat info;
    if (fstatat(above->directories[at], name, &info, AT_SYMLINK_NOFOLLOW) < 0) {
      if (errno == ENOENT) continue;
      return fail(failure, "look at %s", name);
    }
    if (!S_ISDIR(info.st_mode)) {
      *closed = true;
      break;
    }
    int directory = open_beneath(above->directories[at], name);
    if (directory < 0) return fail(failure, "open directory %s", name);
    below->directories[below->count] = directory;
    below->roots[below->count++] = above->roots[at];
    *closed = is_opaque(directory);
  }
  return 0;
}

static int by_name_and_height(const void *left, const void *right) {
  const struct found *a = left, *b = right;
  int order = strcmp(a->name, b->name);
  return order != 0 ? order : (a->at > b->at) - (a->at < b->at);
}

static int take_name(struct listing *listing, const struct dirent *entry, uint32_t at) {
  const char *name = entry->d_name;
  if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0) return 0;
  errno = EMFILE;
  if (listing->count >= CAPTURE_INODES) return -1;
  if (listing->count == listing->capacity) {
    uint32_t wanted = listing->capacity == 0 ? 64 : listing->capacity * 2;
    struct found *larger = reallocarray(listing->found, wanted, sizeof(*larger));
    if (larger == NULL) return -1;
    listing->found = larger;
    listing->capacity = wanted;
  }
  char *copy = strdup(name);
  if (copy == NULL) return -1;
  listing->found[listing->count++] = (struct found){.name = copy, .at = at, .is_whiteout = entry->d_type == DT_CHR || entry->d_type == DT_UNKNOWN};
  return 0;
}

void forget_listing(struct listing *listing) {
  for (uint32_t i = 0; i < listing->count; i++) free(listing->found[i].name);
  free(listing->found);
}

int list_level(const struct level *level, struct listing *listing, struct failure *failure) {
  for (uint32_t at = 0; at < level->count; at++) {
    int copy = openat(level->directories[at], ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *directory = copy < 0 ? NULL : fdopendir(copy);
    if (directory == NULL) {
      close_fd(&copy);
      return fail(failure, errno == EMFILE ? "follow directories that nest so deep, as more files may not be opened" : "list a directory");
    }
    const struct dirent *entry;
    int result = 0;
    while (result == 0 && (errno = 0, entry = readdir(directory)) != NULL) result = take_name(listing, entry, at);
    if (result < 0 || errno != 0) result = fail(failure, "list a directory");
    (void)closedir(directory);
    if (result < 0) return -1;
  }
  if (listing->count > 0) qsort(listing->found, listing->count, sizeof(*listing->found), by_name_and_height);
  uint32_t kept = 0;
  for (uint32_t i = 0; i < listing->count; i++) {
    if (kept > 0 && strcmp(listing->found[kept - 1].name, listing->found[i].name) == 0) free(listing->found[i].name);
    else listing->found[kept++] = listing->found[i];
  }
  listing->count = kept;
  return 0;
}

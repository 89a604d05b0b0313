#include "kernel_api.h"

#include "compare.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#include "io.h"
#include "merge.h"

enum { PATH_BYTES = (DEPTH_LIMIT + 1) * 256, CHUNK = 128 * 1024, NAME_LIST = 64 * 1024, ATTRIBUTE_BYTES = 1 << 20 };

/* One side of an entry; without a level it is absent. */
struct entry {
  const struct level *level;
  uint32_t at; /* in the level */
  struct stat info;
  char target[PATH_MAX];
  uint32_t target_size;
  uint32_t attributes_size;
  uint8_t attributes[ATTRIBUTE_BYTES];
};

struct comparison {
  const struct captured_root *roots[2];
  const struct compare_wish *wish;
  int output;
  uint64_t written;
  uint32_t path_size, filled;
  char path[PATH_BYTES];
  struct entry sides[2];
  char names[NAME_LIST];
  uint8_t chunks[2][CHUNK];
  uint8_t buffer[CHUNK];
};

enum { OLD, NEW };

/* Also ends a comparison that nobody waits for: its output has lost its name. */
static int flush(struct comparison *self, struct failure *failure) {
  struct stat info;
  for (uint32_t done = 0; done < self->filled;) {
    ssize_t count = write(self->output, self->buffer + done, self->filled - done);
    if (count < 0) return fail(failure, "write what differs");
    done += (uint32_t)count;
  }
  self->filled = 0;
  if (fstat(self->output, &info) < 0) return fail(failure, "look at the output");
  errno = ECANCELED;
  return info.st_nlink == 0 ? fail(failure, "compare files any further") : 0;
}

static int put(struct comparison *self, const void *bytes, size_t size, struct failure *failure) {
  errno = EFBIG;
  self->written += size;
  if (self->written > self->wish->output_limit) return fail(failure, "write more than %llu bytes of what differs", (unsigned long long)self->wish->output_limit);
  for (const uint8_t *next = bytes; size > 0;) {
    size_t part = CHUNK - self->filled < size ? CHUNK - self->filled : size;
    memcpy(self->buffer + self->filled, next, part);
    self->filled += (uint32_t)part;
    next += part;
    size -= part;
    if (self->filled == CHUNK && flush(self, failure) < 0) return -1;
  }
  return 0;
}

static bool is_absent(const struct entry *entry) { return entry->level == NULL; }

static bool is_directory(const struct entry *entry) { return !is_absent(entry) && S_ISDIR(entry->info.st_mode); }

/* Looks at one side; a whiteout is the absence of what it hides. */
static int look(struct entry *entry, const struct level *level, const struct found *found, struct failure *failure) {
  entry->level = NULL;
  if (found == NULL) return 0;
  if (fstatat(level->directories[found->at], found->name, &entry->info, AT_SYMLINK_NOFOLLOW) < 0) return fail(failure, "look at %s", found->name);
  if (S_ISCHR(entry->info.st_mode) && entry->info.st_rdev == 0) return 0;
  entry->level = level;
  entry->at = found->at;
  return 0;
}

static int by_text(const void *left, const void *right) { return strcmp(*(char *const *)left, *(char *const *)right); }

static int add_attribute(struct entry *entry, const char *name, const void *value, size_t size, struct failure *failure) {
  uint32_t sizes[2] = {(uint32_t)strlen(name), (uint32_t)size};
  errno = E2BIG;
  if (size > ATTRIBUTE_BYTES || entry->attributes_size + sizeof(sizes) + sizes[0] + size > ATTRIBUTE_BYTES) return fail(failure, "keep attribute %s", name);
  uint8_t *next = entry->attributes + entry->attributes_size;
  memcpy(next, sizes, sizeof(sizes));
  memcpy(next + sizeof(sizes), name, sizes[0]);
  memcpy(next + sizeof(sizes) + sizes[0], value, size);
  entry->attributes_size += (uint32_t)(sizeof(sizes) + sizes[0] + size);
  return 0;
}

/* Sorted by name, so that they can be compared as bytes. */
static int read_attributes(struct comparison *self, struct entry *entry, const struct captured_root *root, const char *name, struct failure *failure) {
  static const char *keys[NAME_LIST / 2];
  uint32_t count = 0;
  entry->attributes_size = 0;
  if (fchdir(entry->level->directories[entry->at]) < 0) return fail(failure, "enter the directory of %s", name);
  ssize_t length = llistxattr(name, self->names, sizeof(self->names));
  if (length < 0) return errno == ENOTSUP ? 0 : fail(failure, "list the attributes of %s", name);
  for (const char *key = self->names; key < self->names + length; key += strlen(key) + 1)
    if (*key != '\0' && is_captured_attribute(root, key)) keys[count++] = key;
  if (count > 0) qsort(keys, count, sizeof(*keys), by_text);
  for (uint32_t i = 0; i < count; i++) {
    ssize_t size = lgetxattr(name, keys[i], self->chunks[0], CHUNK);
    if (size < 0) return fail(failure, "read attribute %s of %s", keys[i], name);
    if (!shift_owners(root, keys[i], self->chunks[0], (size_t)size)) continue;
    if (add_attribute(entry, keys[i], self->chunks[0], (size_t)size, failure) < 0) return -1;
  }
  return 0;
}

static int read_entry(struct comparison *self, uint32_t side, const char *name, struct failure *failure) {
  struct entry *entry = &self->sides[side];
  entry->target_size = entry->attributes_size = 0;
  if (is_absent(entry)) return 0;
  if (S_ISLNK(entry->info.st_mode)) {
    ssize_t size = readlinkat(entry->level->directories[entry->at], name, entry->target, sizeof(entry->target));
    if (size < 0) return fail(failure, "read link %s", name);
    entry->target_size = (uint32_t)size;
  }
  return read_attributes(self, entry, &self->roots[side][entry->level->roots[entry->at]], name, failure);
}

static int open_file(const struct entry *entry, const char *name, struct failure *failure) {
  int file = openat(entry->level->directories[entry->at], name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
  return file < 0 ? fail(failure, "open %s", name) : file;
}

/* Files of one size. Returns 1 where they differ. */
static int contents_differ(struct comparison *self, const char *name, struct failure *failure) {
  uint64_t left = (uint64_t)self->sides[NEW].info.st_size;
  if (left == 0) return 0;
  AUTO_CLOSE int old = open_file(&self->sides[OLD], name, failure);
  AUTO_CLOSE int new = open_file(&self->sides[NEW], name, failure);
  if (old < 0 || new < 0) return -1;
  for (uint32_t turn = 1; left > 0; turn++) {
    size_t part = left < CHUNK ? (size_t)left : CHUNK;
    if (read_full(old, self->chunks[0], part) < 0 || read_full(new, self->chunks[1], part) < 0) return fail(failure, "read %s", name);
    if (memcmp(self->chunks[0], self->chunks[1], part) != 0) return 1;
    left -= part;
    if (turn % 64 == 0 && flush(self, failure) < 0) return -1;
  }
  return 0;
}

/* What differs between two sides that are there. Returns the set, or -1. */
static int differences(struct comparison *self, const char *name, struct failure *failure) {
  const struct entry *old = &self->sides[OLD], *new = &self->sides[NEW];
  const struct captured_root *old_root = &self->roots[OLD][old->level->roots[old->at]], *new_root = &self->roots[NEW][new->level->roots[new->at]];
  int found = 0;
  bool is_dir = S_ISDIR(new->info.st_mode);
  if (((old->info.st_mode ^ new->info.st_mode) & 07777) != 0) found |= DIFFERS_MODE;
  if (captured_id(old_root, old->info.st_uid) != captured_id(new_root, new->info.st_uid)) found |= DIFFERS_OWNER;
  if (captured_id(old_root, old->info.st_gid) != captured_id(new_root, new->info.st_gid)) found |= DIFFERS_OWNER;
  const struct timespec *before = &old->info.st_mtim, *after = &new->info.st_mtim;
  if (!is_dir && (before->tv_sec != after->tv_sec || before->tv_nsec != after->tv_nsec)) found |= DIFFERS_MTIME; /* a directory's says only that names changed */
  if (old->attributes_size != new->attributes_size || memcmp(old->attributes, new->attributes, new->attributes_size) != 0) found |= DIFFERS_ATTRIBUTES;
  if (((old->info.st_mode ^ new->info.st_mode) & S_IFMT) != 0) return found | DIFFERS_TYPE;
  if (S_ISLNK(new->info.st_mode) && (old->target_size != new->target_size || memcmp(old->target, new->target, new->target_size) != 0))
    found |= DIFFERS_CONTENT;
  if ((S_ISCHR(new->info.st_mode) || S_ISBLK(new->info.st_mode)) && old->info.st_rdev != new->info.st_rdev) found |= DIFFERS_CONTENT;
  if (!S_ISREG(new->info.st_mode)) return found;
  if (old->info.st_size != new->info.st_size) return found | DIFFERS_CONTENT;
  int differ = contents_differ(self, name, failure);
  return differ < 0 ? -1 : differ > 0 ? found | DIFFERS_CONTENT : found;
}

static uint64_t size_of(const struct entry *entry) {
  if (is_absent(entry)) return 0;
  return S_ISREG(entry->info.st_mode) ? (uint64_t)entry->info.st_size : entry->target_size;
}

static uint64_t content_size(const struct comparison *self, uint32_t side) {
  const struct entry *entry = &self->sides[side];
  uint32_t wanted = side == OLD ? COMPARE_OLD_CONTENT : COMPARE_NEW_CONTENT;
  if (is_absent(entry) || !S_ISREG(entry->info.st_mode) || (self->wish->flags & wanted) == 0) return 0;
  return size_of(entry) > self->wish->content_limit ? 0 : size_of(entry);
}

static int put_content(struct comparison *self, uint32_t side, const char *name, struct failure *failure) {
  uint64_t left = content_size(self, side);
  if (left == 0) return 0;
  AUTO_CLOSE int file = open_file(&self->sides[side], name, failure);
  if (file < 0) return -1;
  while (left > 0) {
    size_t part = left < CHUNK ? (size_t)left : CHUNK;
    if (read_full(file, self->chunks[0], part) < 0) return fail(failure, "read %s", name);
    if (put(self, self->chunks[0], part, failure) < 0) return -1;
    left -= part;
  }
  return 0;
}

static uint8_t *add_bytes(uint8_t *next, uint64_t value, size_t size) {
  for (size_t i = 0; i < size; i++) *next++ = (uint8_t)(value >> 8 * i);
  return next;
}

static uint8_t type_of(const struct entry *entry) { return is_absent(entry) ? 0 : (uint8_t)((entry->info.st_mode & S_IFMT) >> 12); }

static int put_record(struct comparison *self, enum compare_kind kind, int differs, const char *name, struct failure *failure) {
  uint32_t side = is_absent(&self->sides[NEW]) ? OLD : NEW;
  const struct entry *entry = &self->sides[side];
  const struct captured_root *root = &self->roots[side][entry->level->roots[entry->at]];
  uint8_t record[COMPARE_RECORD];
  uint8_t *next = record;
  *next++ = (uint8_t)kind;
  *next++ = type_of(&self->sides[OLD]);
  *next++ = type_of(&self->sides[NEW]);
  *next++ = (uint8_t)differs;
  next = add_bytes(next, entry->info.st_mode & 07777, 4);
  next = add_bytes(next, captured_id(root, entry->info.st_uid), 4);
  next = add_bytes(next, captured_id(root, entry->info.st_gid), 4);
  next = add_bytes(next, (uint64_t)entry->info.st_mtim.tv_sec, 8);
  next = add_bytes(next, size_of(&self->sides[OLD]), 8);
  next = add_bytes(next, size_of(&self->sides[NEW]), 8);
  next = add_bytes(next, self->path_size, 4);
  next = add_bytes(next, entry->target_size, 4);
  next = add_bytes(next, entry->attributes_size, 4);
  next = add_bytes(next, entry->info.st_rdev, 4);
  next = add_bytes(next, content_size(self, OLD), 8);
  (void)add_bytes(next, content_size(self, NEW), 8);
  if (put(self, record, sizeof(record), failure) < 0 || put(self, self->path, self->path_size, failure) < 0) return -1;
  if (put(self, entry->target, entry->target_size, failure) < 0 || put(self, entry->attributes, entry->attributes_size, failure) < 0) return -1;
  if (put_content(self, OLD, name, failure) < 0) return -1;
  return put_content(self, NEW, name, failure);
}

static bool is_same_file(const struct stat *a, const struct stat *b) { return a->st_dev == b->st_dev && a->st_ino == b->st_ino; }

/* Compares one entry without what is in it; `is_wanted` is whether it is told of when nothing differs. */
static int compare_entry(struct comparison *self, const char *name, bool is_wanted, struct failure *failure) {
  const struct entry *old = &self->sides[OLD], *new = &self->sides[NEW];
  if (is_absent(old) && is_absent(new)) return 0;
  bool is_both = !is_absent(old) && !is_absent(new);
  if (!is_wanted && is_both && is_same_file(&old->info, &new->info)) return 0;
  if (read_entry(self, OLD, name, failure) < 0 || read_entry(self, NEW, name, failure) < 0) return -1;
  if (!is_both) return put_record(self, is_absent(old) ? ENTRY_ADDED : ENTRY_DELETED, 0, name, failure);
  int differs = differences(self, name, failure);
  if (differs < 0) return -1;
  if (differs == 0 && !is_wanted) return 0;
  enum compare_kind kind = differs == 0 ? ENTRY_SAME : differs >= DIFFERS_CONTENT ? ENTRY_MODIFIED : ENTRY_METADATA;
  return put_record(self, kind, differs, name, failure);
}

/* Whether two levels merge the same directories: then all that is in them is the same. */
static bool is_same_level(const struct level *old, const struct level *new) {
  struct stat infos[2];
  if (old->count != new->count) return false;
  for (uint32_t i = 0; i < old->count; i++) {
    if (fstat(old->directories[i], &infos[OLD]) < 0 || fstat(new->directories[i], &infos[NEW]) < 0) return false;
    if (!is_same_file(&infos[OLD], &infos[NEW])) return false;
  }
  return true;
}

static int compare_levels(struct comparison *self, const struct level levels[2], const char *only, uint32_t depth, struct failure *failure);

static int descend(struct comparison *self, const struct level levels[2], const struct found *founds[2], const bool wanted[2], const char *only,
                   uint32_t depth, struct failure *failure) {
  struct level *below = calloc(2, sizeof(*below)); /* too large for the stack of a deep tree */
  int result = 0;
  errno = ENOMEM;
  if (below == NULL) return fail(failure, "open a directory");
  for (uint32_t side = OLD; side <= NEW && result == 0; side++) {
    bool closed;
    if (wanted[side]) result = open_level(&levels[side], founds[side]->at, founds[side]->name, &below[side], &closed, failure);
  }
  if (result == 0 && (*only != '\0' || !is_same_level(&below[OLD], &below[NEW]))) result = compare_levels(self, below, only, depth + 1, failure);
  close_level(&below[OLD]);
  close_level(&below[NEW]);
  free(below);
  return result;
}

/* Whether the first name in a path is this one; `*rest` is then what follows it. */
static bool begins_with(const char *path, const char *name, const char **rest) {
  size_t size = strlen(name);
  if (strncmp(path, name, size) != 0 || (path[size] != '/' && path[size] != '\0')) return false;
  *rest = path[size] == '/' ? path + size + 1 : path + size;
  return true;
}

static int compare_name(struct comparison *self, const struct level levels[2], const struct found *founds[2], const char *only, uint32_t depth,
                        struct failure *failure) {
  const char *name = founds[OLD] != NULL ? founds[OLD]->name : founds[NEW]->name;
  const char *rest = "";
  uint32_t size = self->path_size;
  if (*only != '\0' && !begins_with(only, name, &rest)) return 0;
  for (uint32_t side = OLD; side <= NEW; side++)
    if (look(&self->sides[side], &levels[side], founds[side], failure) < 0) return -1;
  const bool wanted[2] = {is_directory(&self->sides[OLD]), is_directory(&self->sides[NEW])};
  if (size > 0) self->path[self->path_size++] = '/';
  memcpy(self->path + self->path_size, name, strlen(name)); /* has room: depth and names are limited */
  self->path_size += (uint32_t)strlen(name);
  int result = *rest == '\0' ? compare_entry(self, name, *only != '\0', failure) : 0;
  bool is_deeper = *rest != '\0' || *only == '\0';
  if (result == 0 && is_deeper && (wanted[OLD] || wanted[NEW])) result = descend(self, levels, founds, wanted, rest, depth, failure);
  self->path_size = size;
  return result;
}

static int compare_listings(struct comparison *self, const struct level levels[2], const struct listing listings[2], const char *only,
                            uint32_t depth, struct failure *failure) {
  uint32_t next[2] = {0, 0};
  while (next[OLD] < listings[OLD].count || next[NEW] < listings[NEW].count) {
    const struct found *founds[2];
    for (uint32_t side = OLD; side <= NEW; side++) founds[side] = next[side] < listings[side].count ? &listings[side].found[next[side]] : NULL;
    int order = founds[OLD] == NULL ? 1 : founds[NEW] == NULL ? -1 : strcmp(founds[OLD]->name, founds[NEW]->name);
    if (order > 0) founds[OLD] = NULL;
    if (order < 0) founds[NEW] = NULL;
    for (uint32_t side = OLD; side <= NEW; side++) next[side] += founds[side] != NULL;
    if (compare_name(self, levels, founds, only, depth, failure) < 0) return -1;
  }
  return 0;
}

static int compare_levels(struct comparison *self, const struct level levels[2], const char *only, uint32_t depth, struct failure *failure) {
  struct listing listings[2] = {0};
  errno = ELOOP;
  if (depth >= DEPTH_LIMIT) return fail(failure, "compare directories that nest deeper than %d", DEPTH_LIMIT);
  int result = flush(self, failure);
  for (uint32_t side = OLD; side <= NEW && result == 0; side++) result = list_level(&levels[side], &listings[side], failure);
  if (result == 0) result = compare_listings(self, levels, listings, only, depth, failure);
  forget_listing(&listings[OLD]);
  forget_listing(&listings[NEW]);
  return result;
}

int64_t compare(const struct compare_side *old, const struct compare_side *new, const struct compare_wish *wish, int output,
                struct failure *failure) {
  const struct compare_side *stacks[2] = {old, new};
  struct comparison *self = calloc(1, sizeof(*self));
  struct level *levels = calloc(2, sizeof(*levels));
  struct found root = {.name = "."};
  if (self == NULL || levels == NULL) return fail(failure, "begin a comparison");
  self->wish = wish;
  self->output = output;
  for (uint32_t side = OLD; side <= NEW; side++) {
    self->roots[side] = stacks[side]->roots;
    levels[side].count = stacks[side]->count;
    for (uint32_t i = 0; i < stacks[side]->count; i++) {
      levels[side].directories[i] = stacks[side]->roots[i].directory;
      levels[side].roots[i] = i;
    }
    if (look(&self->sides[side], &levels[side], stacks[side]->count == 0 ? NULL : &root, failure) < 0) return -1;
  }
  bool root_only = strcmp(wish->only, ".") == 0;
  int result = *wish->only == '\0' || root_only ? compare_entry(self, ".", root_only, failure) : 0;
  if (result == 0 && !root_only && (*wish->only != '\0' || !is_same_level(&levels[OLD], &levels[NEW]))) result = compare_levels(self, levels, wish->only, 0, failure);
  if (result == 0) result = flush(self, failure);
  int64_t size = result == 0 ? (int64_t)self->written : -1;
  free(self);
  free(levels);
  return size;
}

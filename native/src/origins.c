#include "kernel_api.h"

#include "origins.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "io.h"
#include "merge.h"

static int64_t forget_below(int directory, uint32_t depth, struct failure *failure);

/* The working directory is the one that `name` lies in. */
static int64_t forget_one(const char *name, struct failure *failure) {
  if (lremovexattr(name, "trusted.overlay.origin") == 0) return 1;
  return errno == ENODATA || errno == ENOTSUP ? 0 : fail(failure, "have %s forget its original", name);
}

static int64_t descend(int directory, const char *name, uint32_t depth, struct failure *failure) {
  AUTO_CLOSE int below = openat(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (below < 0) return fail(failure, "open directory %s", name);
  int64_t count = forget_below(below, depth + 1, failure);
  /* whatever the working directory is now, the rest of the names is of this one */
  if (count >= 0 && fchdir(directory) < 0) return fail(failure, "go back from directory %s", name);
  return count;
}

/* The kinds of files that an entry does not tell are asked for. */
static int is_directory(int directory, const struct dirent *entry, struct failure *failure) {
  struct stat info;
  if (entry->d_type != DT_UNKNOWN) return entry->d_type == DT_DIR;
  if (fstatat(directory, entry->d_name, &info, AT_SYMLINK_NOFOLLOW) < 0) return fail(failure, "look at %s", entry->d_name);
  return S_ISDIR(info.st_mode);
}

static int64_t forget_entry(int directory, const struct dirent *entry, uint32_t depth, struct failure *failure) {
  const char *name = entry->d_name;
  if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0) return 0;
  int deeper = is_directory(directory, entry, failure);
  if (deeper < 0) return -1;
  return deeper ? descend(directory, name, depth, failure) : forget_one(name, failure);
}

static int64_t forget_below(int directory, uint32_t depth, struct failure *failure) {
  errno = ELOOP;
  if (depth > DEPTH_LIMIT) return fail(failure, "go into directories that nest deeper than %d", DEPTH_LIMIT);
  int copy = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *names = copy < 0 ? NULL : fdopendir(copy);
  if (names == NULL || fchdir(directory) < 0) {
    if (names == NULL) close_fd(&copy);
    else (void)closedir(names);
    return fail(failure, "list a directory");
  }
  const struct dirent *entry;
  int64_t count = 0, found = 0;
  while (found >= 0 && (errno = 0, entry = readdir(names)) != NULL) {
    found = forget_entry(directory, entry, depth, failure);
    count += found;
  }
  if (found >= 0 && errno != 0) found = fail(failure, "list a directory");
  (void)closedir(names);
  return found < 0 ? -1 : count;
}

int64_t forget_origins(int directory, struct failure *failure) { return forget_below(directory, 0, failure); }

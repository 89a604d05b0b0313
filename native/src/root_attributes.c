#include "root_attributes.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/xattr.h>

enum { NAME_LIST = 64 * 1024, VALUE_LIMIT = 64 * 1024 };

static bool is_copied(const char *name) { return strncmp(name, "user.", 5) == 0 || strncmp(name, "system.posix_acl_", 17) == 0; }

int root_copy_attributes(int from, int to, struct failure *failure) {
  static char names[NAME_LIST], value[VALUE_LIMIT];
  ssize_t length = flistxattr(from, names, sizeof(names));
  if (length < 0) return errno == ENOTSUP ? 0 : fail(failure, "list the attributes of the root directory");
  for (const char *name = names; name < names + length; name += strlen(name) + 1) {
    if (!is_copied(name)) continue;
    ssize_t size = fgetxattr(from, name, value, sizeof(value));
    if (size < 0) return fail(failure, "read attribute %s of the root directory", name);
    if (fsetxattr(to, name, value, (size_t)size, 0) < 0 && errno != ENOTSUP) return fail(failure, "set attribute %s of the root directory", name);
  }
  return 0;
}

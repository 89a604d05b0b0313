#include "root_attributes.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/xattr.h>

#include "acl.h"

enum { IDS = 65536, NAME_LIST = 64 * 1024, VALUE_LIMIT = 64 * 1024 };

static bool is_copied(const char *name) { return strncmp(name, "user.", 5) == 0 || strncmp(name, "system.posix_acl_", 17) == 0; }

/* Linux before 6.2 gives lists as the image has them, though it is seen through a mount that shifts owners. */
static uint32_t shift_unshifted(const void *uid_base, uint32_t id) { return id < IDS ? id + *(const uint32_t *)uid_base : id; }

int root_copy_attributes(int from, int to, uint32_t uid_base, struct failure *failure) {
  static char names[NAME_LIST];
  static uint8_t value[VALUE_LIMIT];
  ssize_t length = flistxattr(from, names, sizeof(names));
  if (length < 0) return errno == ENOTSUP ? 0 : fail(failure, "list the attributes of the root directory");
  for (const char *name = names; name < names + length; name += strlen(name) + 1) {
    if (!is_copied(name)) continue;
    ssize_t size = fgetxattr(from, name, value, sizeof(value));
    if (size < 0) return fail(failure, "read attribute %s of the root directory", name);
    if (strncmp(name, "system.posix_acl_", 17) == 0) (void)acl_shift_ids(value, (size_t)size, shift_unshifted, &uid_base);
    if (fsetxattr(to, name, value, (size_t)size, 0) < 0 && errno != ENOTSUP) return fail(failure, "set attribute %s of the root directory", name);
  }
  return 0;
}

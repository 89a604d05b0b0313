#include "root_attributes.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/xattr.h>

enum { IDS = 65536, NAME_LIST = 64 * 1024, VALUE_LIMIT = 64 * 1024 };

static bool is_copied(const char *name) { return strncmp(name, "user.", 5) == 0 || strncmp(name, "system.posix_acl_", 17) == 0; }

/* Linux before 6.2 gives lists as the image has them, though it is seen through a mount that shifts owners. Source: linux/posix_acl_xattr.h */
static void shift_list(char *value, ssize_t size, uint32_t uid_base) {
  for (char *entry = value + 4; entry + 8 <= value + size; entry += 8) {
    uint16_t tag;
    uint32_t id;
    memcpy(&tag, entry, sizeof(tag));
    memcpy(&id, entry + 4, sizeof(id));
    if ((tag != 2 && tag != 8) || id >= IDS) continue; /* only named users and groups have a number */
    id += uid_base;
    memcpy(entry + 4, &id, sizeof(id));
  }
}

int root_copy_attributes(int from, int to, uint32_t uid_base, struct failure *failure) {
  static char names[NAME_LIST], value[VALUE_LIMIT];
  ssize_t length = flistxattr(from, names, sizeof(names));
  if (length < 0) return errno == ENOTSUP ? 0 : fail(failure, "list the attributes of the root directory");
  for (const char *name = names; name < names + length; name += strlen(name) + 1) {
    if (!is_copied(name)) continue;
    ssize_t size = fgetxattr(from, name, value, sizeof(value));
    if (size < 0) return fail(failure, "read attribute %s of the root directory", name);
    if (strncmp(name, "system.posix_acl_", 17) == 0) shift_list(value, size, uid_base);
    if (fsetxattr(to, name, value, (size_t)size, 0) < 0 && errno != ENOTSUP) return fail(failure, "set attribute %s of the root directory", name);
  }
  return 0;
}

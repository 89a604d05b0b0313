#include "acl.h"

#include <string.h>

enum { HEADER = 4, ENTRY = 8, NAMED_USER = 2, NAMED_GROUP = 8 };

bool acl_shift_ids(uint8_t *value, size_t size, acl_shift shift, const void *context) {
  if (size < HEADER || (size - HEADER) % ENTRY != 0) return false;
  for (uint8_t *entry = value + HEADER; entry < value + size; entry += ENTRY) {
    uint16_t tag;
    uint32_t id;
    memcpy(&tag, entry, sizeof(tag));
    memcpy(&id, entry + 4, sizeof(id));
    if (tag != NAMED_USER && tag != NAMED_GROUP) continue; /* only these have a number */
    id = shift(context, id);
    memcpy(entry + 4, &id, sizeof(id));
  }
  return true;
}

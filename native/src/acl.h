/* Access lists, as attributes called system.posix_acl_* hold them. Source: linux/posix_acl_xattr.h */
#ifndef SQ_ACL_H
#define SQ_ACL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint32_t (*acl_shift)(const void *context, uint32_t id);

/* Replaces the numbers of named users and groups by what `shift` makes of them. Returns false where the value is no list. */
bool acl_shift_ids(uint8_t *value, size_t size, acl_shift shift, const void *context);

#endif

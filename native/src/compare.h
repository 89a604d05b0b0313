/*
 * Compares two stacks of directories, each as overlayfs would merge it, and writes what differs as records; daemon/src/kernel/diff-records.ts
 * reads them. What is in the directories is hostile; no link is followed, no other filesystem is entered.
 *
 * A record, little-endian: u8 kind, u8 old type, u8 new type (the upper four bits of a mode; 0 = absent), u8 what differs, u32 mode, u32 uid,
 * u32 gid, i64 seconds of the mtime (of the new side, or of the old one where there is no new), u64 old size, u64 new size, u32 bytes of the
 * path, of the link's target, and of the attributes, u32 number of the device, u64 bytes of the old content, and of the new one. Then those
 * five. Each attribute is u32 bytes of its name, u32 bytes of its value, name, value.
 */
#ifndef SQ_COMPARE_H
#define SQ_COMPARE_H

#include <stdint.h>

#include "capture.h"
#include "failure.h"

enum { COMPARE_RECORD = 72 };

enum compare_kind { ENTRY_SAME = 0, ENTRY_ADDED, ENTRY_MODIFIED, ENTRY_DELETED, ENTRY_METADATA };

enum compare_difference { DIFFERS_MODE = 1, DIFFERS_OWNER = 2, DIFFERS_MTIME = 4, DIFFERS_ATTRIBUTES = 8, DIFFERS_CONTENT = 16, DIFFERS_TYPE = 32 };

/* Which contents of files are written. */
enum compare_flags { COMPARE_OLD_CONTENT = 1, COMPARE_NEW_CONTENT = 2 };

struct compare_side {
  const struct captured_root *roots; /* topmost first; of the old side there may be none, which is like an empty directory without a root */
  uint32_t count;
};

struct compare_wish {
  uint32_t flags;
  uint64_t content_limit; /* files that are larger have no content */
  uint64_t output_limit;  /* a larger output is a failure: EFBIG */
  const char *only;       /* path without "/" at its ends: only that entry, also when it is the same, "." for the root; "" for all */
};

/* Writes to the empty `output`. Ends early, with ECANCELED, once that has no name any more. Returns its size in bytes, or -1. */
int64_t compare(const struct compare_side *old, const struct compare_side *new, const struct compare_wish *wish, int output,
                struct failure *failure);

#endif

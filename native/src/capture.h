/*
 * Captures directories as one erofs image: an upper, or a stack of them as overlayfs would merge it, with the whiteouts and opaque directories
 * that hide what lies below all of them. What is in them is hostile; no link is followed, no other filesystem is entered.
 */
#ifndef SQ_CAPTURE_H
#define SQ_CAPTURE_H

#include <stdbool.h>
#include <stdint.h>

#include "failure.h"
#include "root.h"

/* A whole stack can be captured. */
enum { MAX_CAPTURED = MAX_LAYERS + 1, CAPTURE_INODES = 4 << 20 };

/*
 * A directory; owners in it are counted from `uid_base`. One that is exact is captured alone and as it is, as the image of a module: with all
 * owners, devices, and the attributes of overlayfs. One that was unpacked by a tool without rights is captured alone, too: overlayfs' marks in it
 * have the names that anybody may give, "user.overlay.…", and one that leads to another layer's content ends with EXDEV.
 */
struct captured_root {
  int directory;
  uint32_t uid_base;
  bool exact;
  bool unpacked;
};

/* Writes the image of `roots`, topmost first, into the empty `file`. Returns its size in bytes, or -1. */
int64_t capture(const struct captured_root *roots, uint32_t count, int file, struct failure *failure);

#endif

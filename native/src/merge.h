/* Stacks of directories as overlayfs would merge them: what shows through of each, name by name. What is in them is hostile. */
#ifndef SQ_MERGE_H
#define SQ_MERGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "capture.h"
#include "failure.h"

/* How deep directories may nest: each level has them open. */
enum { DEPTH_LIMIT = 2048 };

/* Where one directory of the merged tree is open: in the topmost of the stack's roots that have it, and in those below that show through. */
struct level {
  int directories[MAX_CAPTURED];
  uint32_t roots[MAX_CAPTURED];
  uint32_t count;
};

struct found {
  char *name;
  uint32_t at;      /* in the level */
  bool is_whiteout; /* or may be one: no other device is in an upper */
};

struct listing {
  struct found *found;
  uint32_t count, capacity;
};

/* What an owner in a root is to whoever lives in it. */
uint32_t captured_id(const struct captured_root *root, uint32_t id);

/* Whether an attribute belongs to a file: of overlayfs's own none, as they name files of the stack as it was, unless the root is exact. */
bool is_captured_attribute(const struct captured_root *root, const char *name);

/* Whether an attribute of a file in an unpacked root says that its content, or what a directory has below, is that of another name. */
bool leads_elsewhere(const struct captured_root *root, const char *name);

/* Whether a directory has the mark of overlayfs that anybody may give. */
bool is_free_opaque(int directory);

/* Owners in access lists and file capabilities are the host's numbers. Returns false where the value makes no sense. */
bool shift_owners(const struct captured_root *root, const char *name, uint8_t *value, size_t size);

/*
 * Opens `name` in every directory of `above` from `first` on that shows through the ones before it. Sets `*closed` when something between
 * hides what is below all roots: an opaque directory, a whiteout or a file.
 */
int open_level(const struct level *above, uint32_t first, const char *name, struct level *below, bool *closed, struct failure *failure);

void close_level(const struct level *level);

/* All names of a level, sorted, each once: where it is found first. */
int list_level(const struct level *level, struct listing *listing, struct failure *failure);

void forget_listing(struct listing *listing);

#endif

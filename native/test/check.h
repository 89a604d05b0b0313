/* The smallest test harness: a failed check says where, and is counted. */
#ifndef SQ_CHECK_H
#define SQ_CHECK_H

#include <stdio.h>

extern int checks_passed, checks_failed;

#define CHECK(condition)                                                                  \
  do {                                                                                    \
    if (condition) {                                                                      \
      checks_passed++;                                                                    \
    } else {                                                                              \
      checks_failed++;                                                                    \
      (void)fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #condition);       \
    }                                                                                     \
  } while (0)

#endif

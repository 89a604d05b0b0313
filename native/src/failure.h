/* Why an operation failed: the first failing step in words, with the errno of that step. */
#ifndef SQ_FAILURE_H
#define SQ_FAILURE_H

struct failure {
  int code;
  char what[256];
};

/* Records errno and what was tried, unless something is recorded already; always returns -1. */
int fail(struct failure *failure, const char *pattern, ...) __attribute__((format(printf, 2, 3)));

#endif

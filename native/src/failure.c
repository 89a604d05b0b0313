#include "failure.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

int fail(struct failure *failure, const char *pattern, ...) {
  if (failure->code != 0) return -1;
  failure->code = errno != 0 ? errno : EIO;
  va_list arguments;
  va_start(arguments, pattern);
  (void)vsnprintf(failure->what, sizeof(failure->what), pattern, arguments);
  va_end(arguments);
  return -1;
}

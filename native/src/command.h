/* Starting a command in a sandbox. */
#ifndef SQ_COMMAND_H
#define SQ_COMMAND_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "exec_request.h"

struct command {
  pid_t pid;
  uint32_t exit_code;
  bool signalled;
};

/*
 * Starts it; `pipes` get our ends of its standard input, output and error. A command that cannot be entered (no such user, directory or
 * program) still "runs": it says why on its standard error and exits with 125, 126 or 127. Returns what failed, with errno, or NULL.
 */
const char *command_start(struct exec_request *request, struct command *command, int pipes[3]);

#endif

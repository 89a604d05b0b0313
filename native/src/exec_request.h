/* What to run, as squashd says it. */
#ifndef SQ_EXEC_REQUEST_H
#define SQ_EXEC_REQUEST_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "frame.h"

enum { EXEC_SHELL = 1, EXEC_MAX_ARGS = 4096, EXEC_MAX_ENV = 512, EXEC_MAX_GROUPS = 64 };

/* On the wire: u32 flags, u32 timeout (ms), u32 stdout limit, u32 stderr limit, user, workdir, u32 count, arguments, u32 count, environment. */
struct exec_request {
  uint32_t flags, timeout_ms, stdout_limit, stderr_limit;
  char *user, *workdir;
  uint32_t argc, envc;
  char *argv[EXEC_MAX_ARGS + 8]; /* ended by NULL; room for a shell in front */
  char *env[EXEC_MAX_ENV + 16];  /* ended by NULL; room for the defaults */
};

/* Decodes a payload, in place. False when it is malformed. */
bool exec_request_decode(struct exec_request *request, struct reader *reader);

/* Who runs it. Names are looked up in the sandbox's own /etc/passwd and /etc/group. */
struct account {
  uid_t uid;
  gid_t gid;
  gid_t groups[EXEC_MAX_GROUPS];
  uint32_t group_count;
  char name[64], home[1024];
};

/* Finds a user by name or number; "" is root. False when there is no such name. A number without an entry is fine. */
bool account_find(const char *user, struct account *account);

/* Decodes one line of a passwd file; false when it is malformed. The line is taken apart in place. */
bool passwd_line_decode(char *line, struct account *account);

#endif

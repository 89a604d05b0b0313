/*
 * One operation in a sandbox, on one connection, in one process, which may get another when nothing is left of the first. It is the subreaper of the command that it starts, so that every
 * descendant stays findable, however it detaches itself. squashd treats all that comes from here as hostile.
 */
#ifndef SQ_SESSION_H
#define SQ_SESSION_H

#include <stdint.h>

#include "workers.h"

enum session_frame {
  /* from squashd */
  SESSION_EXEC = 1,  /* see struct exec_request */
  SESSION_STDIN,     /* bytes */
  SESSION_STDIN_END, /* nothing more comes */
  SESSION_CANCEL,    /* kill the whole tree */
  /* to squashd */
  SESSION_STDOUT = 0x81, /* bytes */
  SESSION_STDERR,        /* bytes */
  SESSION_EXIT,          /* u32 code, u32 SESSION_* flags; the last frame */
  SESSION_FAILED         /* status is an errno; what failed; the last frame */
};

enum {
  SESSION_TIMED_OUT = 1,
  SESSION_CANCELLED = 2,
  SESSION_STDOUT_TRUNCATED = 4,
  SESSION_STDERR_TRUNCATED = 8,
  SESSION_SIGNALLED = 16
};

/* `link` is how it gets further connections of the non-blocking `listener`, one after the other. */
_Noreturn void run_session(int connection, int proc, int listener, struct worker_link link);

#endif

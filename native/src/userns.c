#include "kernel_api.h"

#include "userns.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>

#include "io.h"

enum { STACK_SIZE = 16384 };

/* Shares this process's memory, errno included: it makes only calls that do not fail, and ends with the pipe, which is when nobody needs it. */
static int wait_for_end(void *argument) {
  const int *ends = argument;
  char byte;
  (void)syscall(SYS_close, ends[1]);
  (void)syscall(SYS_read, ends[0], &byte, 1);
  (void)syscall(SYS_exit, 0);
  return 0;
}

static int write_map(pid_t pid, const char *kind, const char *text, struct failure *failure) {
  char path[64];
  (void)format(path, sizeof(path), "/proc/%d/%s", pid, kind);
  if (write_file_at(AT_FDCWD, path, text) < 0) return fail(failure, "write %s", path);
  return 0;
}

static int map_and_open(pid_t pid, const char *map, struct failure *failure) {
  char path[64];
  if (write_map(pid, "uid_map", map, failure) < 0 || write_map(pid, "gid_map", map, failure) < 0) return -1;
  (void)format(path, sizeof(path), "/proc/%d/ns/user", pid);
  int userns = open(path, O_RDONLY | O_CLOEXEC);
  return userns < 0 ? fail(failure, "open %s", path) : userns;
}

int userns_shift(uint32_t stored, uint32_t shown, uint32_t count, struct failure *failure) {
  static char stack[STACK_SIZE] __attribute__((aligned(16)));
  int ends[2];
  char map[64];
  (void)format(map, sizeof(map), "%u %u %u\n", stored, shown, count);
  if (pipe2(ends, O_CLOEXEC) < 0) return fail(failure, "make a pipe");
  /* a process that shares all memory: copying it costs more than all else here */
  pid_t pid = clone(wait_for_end, stack + sizeof(stack), CLONE_VM | CLONE_NEWUSER | SIGCHLD, ends);
  int userns = pid < 0 ? fail(failure, "make a user namespace") : map_and_open(pid, map, failure);
  close_fd(&ends[1]);
  /* SIGCHLD is ignored, so that this waits for its end and then finds nobody; the stack is free from then on */
  while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR) continue;
  close_fd(&ends[0]);
  return userns;
}

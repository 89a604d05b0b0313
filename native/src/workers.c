#include "kernel_api.h"

#include "workers.h"

#include <errno.h>
#include <linux/ioprio.h>
#include <linux/sched/types.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "io.h"

enum { MAX_IDLE = 2, IDLE_MS = 1000, ACCEPT_MS = 30000, STOPPED_MS = 1000, LONG_MS = 250 };

/* Words are added to a counter and read all at once: each has a place of its own there. */
enum word { ACCEPT = 1, ACCEPTED = 1, IDLE = 1 << 16 };

struct worker {
  pid_t pid; /* 0 = a free place. Not reaped yet, so that the number cannot be another's */
  struct worker_link link;
  bool idle, accepting;
  bool watched;   /* busy for so long that it is listened to; others that are busy are asked at each tick */
  uint64_t since; /* when it was told to accept, or heard to be idle */
};

static struct worker workers[MAX_WORKERS];

static void say(int fd, uint64_t word) {
  ssize_t written = write(fd, &word, sizeof(word));
  (void)written;
}

static void forget(struct worker *worker) {
  close_fd(&worker->link.order);
  close_fd(&worker->link.report);
  *worker = (struct worker){0};
}

/* Ends a session that has no connection. It may be stopped, hence no word would do. */
static void end(struct worker *worker) {
  (void)kill(worker->pid, SIGKILL);
  forget(worker);
}

static size_t count_idle(void) {
  size_t count = 0;
  for (size_t i = 0; i < MAX_WORKERS; i++) count += workers[i].idle;
  return count;
}

/* Reads what it has said since. */
static void hear(struct worker *worker) {
  uint64_t words;
  if (worker->idle || read(worker->link.report, &words, sizeof(words)) != (ssize_t)sizeof(words)) return;
  if (words % IDLE != 0) worker->accepting = false;
  if (words < IDLE) return;
  worker->watched = false;
  worker->idle = true;
  worker->since = now_ms();
  if (count_idle() > MAX_IDLE) end(worker);
}

static bool same_limits(pid_t pid) {
  for (int resource = 0; resource < RLIM_NLIMITS; resource++) {
    struct rlimit own, theirs;
    if (prlimit(0, resource, NULL, &own) < 0 || prlimit(pid, resource, NULL, &theirs) < 0) return false;
    if (own.rlim_cur != theirs.rlim_cur || own.rlim_max != theirs.rlim_max) return false;
  }
  return true;
}

static bool same_schedule(pid_t pid) {
  struct sched_attr own = {0}, theirs = {0};
  uint64_t own_cpus[64] = {0}, their_cpus[64] = {0}; /* up to 4096 processors */
  if (syscall(SYS_sched_getattr, 0, &own, sizeof(own), 0) < 0 || syscall(SYS_sched_getattr, pid, &theirs, sizeof(theirs), 0) < 0) return false;
  if (syscall(SYS_ioprio_get, IOPRIO_WHO_PROCESS, 0) != syscall(SYS_ioprio_get, IOPRIO_WHO_PROCESS, pid)) return false;
  if (syscall(SYS_sched_getaffinity, 0, sizeof(own_cpus), own_cpus) < 0) return false;
  if (syscall(SYS_sched_getaffinity, pid, sizeof(their_cpus), their_cpus) < 0) return false;
  return memcmp(&own, &theirs, sizeof(own)) == 0 && memcmp(own_cpus, their_cpus, sizeof(own_cpus)) == 0;
}

static bool is_stopped_or_dead(pid_t pid) {
  siginfo_t info = {0};
  return waitid(P_PID, (id_t)pid, &info, WSTOPPED | WEXITED | WNOHANG | WNOWAIT) < 0 || info.si_pid != 0;
}

/* As a session would be that were forked now. What a command changed of init itself so holds for the next command, as it does without reuse. */
static bool is_as_new(pid_t pid) { return !is_stopped_or_dead(pid) && same_limits(pid) && same_schedule(pid); }

bool workers_accept(void) {
  for (size_t i = 0; i < MAX_WORKERS; i++) {
    struct worker *worker = &workers[i];
    if (worker->pid != 0) hear(worker);
    if (!worker->idle) continue;
    if (!is_as_new(worker->pid)) {
      end(worker);
      continue;
    }
    worker->idle = false;
    worker->accepting = true;
    worker->since = now_ms();
    say(worker->link.order, ACCEPT);
    return true;
  }
  return false;
}

/* One that takes long, on a busy machine or because it was stopped, holds nobody up: whoever is first has the connection. */
bool workers_accepting(void) {
  for (size_t i = 0; i < MAX_WORKERS; i++)
    if (workers[i].accepting && now_ms() - workers[i].since < LONG_MS) return true;
  return false;
}

struct worker_link workers_link(void) {
  struct worker_link link = {.order = -1, .report = -1};
  bool full = true;
  for (size_t i = 0; i < MAX_WORKERS; i++) full = full && workers[i].pid != 0;
  if (full) return link;
  link.order = eventfd(0, EFD_CLOEXEC);
  link.report = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (link.order >= 0 && link.report >= 0) return link;
  close_fd(&link.order);
  close_fd(&link.report);
  return (struct worker_link){.order = -1, .report = -1};
}

void workers_add(pid_t pid, struct worker_link link) {
  for (size_t i = 0; i < MAX_WORKERS; i++) {
    if (workers[i].pid != 0) continue;
    workers[i] = (struct worker){.pid = pid, .link = link, .since = now_ms()};
    return;
  }
}

void workers_forget(pid_t pid) {
  for (size_t i = 0; i < MAX_WORKERS; i++)
    if (workers[i].pid == pid) forget(&workers[i]);
}

/* One that waits for the processor may still come; one that was stopped on its way would be awaited in vain. */
static bool is_overdue(const struct worker *worker, uint64_t age) {
  return worker->accepting && (age >= ACCEPT_MS || (age >= STOPPED_MS && is_stopped_or_dead(worker->pid)));
}

void workers_tick(void) {
  for (size_t i = 0; i < MAX_WORKERS; i++) {
    struct worker *worker = &workers[i];
    if (worker->pid == 0) continue;
    hear(worker);
    uint64_t age = now_ms() - worker->since;
    if (is_overdue(worker, age) || (worker->idle && age >= IDLE_MS)) {
      end(worker);
    } else if (!worker->idle && age >= LONG_MS) {
      worker->watched = true;
    }
  }
}

size_t workers_watch(struct pollfd watched[MAX_WORKERS], int *timeout_ms) {
  size_t count = 0;
  *timeout_ms = -1;
  for (size_t i = 0; i < MAX_WORKERS; i++) {
    if (workers[i].pid == 0) continue;
    if (workers[i].watched || workers[i].accepting) watched[count++] = (struct pollfd){.fd = workers[i].link.report, .events = POLLIN};
    if (!workers[i].watched || workers[i].accepting) *timeout_ms = LONG_MS;
  }
  return count;
}

void workers_leave(void) {
  for (size_t i = 0; i < MAX_WORKERS; i++) {
    if (workers[i].pid == 0) continue;
    close_fd(&workers[i].link.order);
    close_fd(&workers[i].link.report);
  }
}

int worker_next(struct worker_link link, int listener) {
  for (;;) {
    uint64_t words;
    say(link.report, IDLE);
    if (read_full(link.order, &words, sizeof(words)) < 0) _exit(0);
    int connection = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    /* Anything but that somebody else was quicker has reasons that another session would not have. */
    if (connection < 0 && errno != EAGAIN) _exit(0);
    say(link.report, ACCEPTED);
    if (connection >= 0) return connection;
  }
}

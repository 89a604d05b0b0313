#include "kernel_api.h"

#include "init.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "deadline.h"
#include "frame.h"
#include "io.h"
#include "session.h"
#include "workers.h"

/* Signals as a fresh program expects them: nothing ignored, nothing blocked. */
static void reset_signals(void) {
  for (int number = 1; number < 65; number++)
    if (number != SIGKILL && number != SIGSTOP) (void)signal(number, SIG_DFL);
  sigset_t none;
  (void)sigemptyset(&none);
  (void)sigprocmask(SIG_SETMASK, &none, NULL);
}

enum { REFUSAL_MS = 1000 };

/* Waits until the caller has gone, and takes what it still sends: closing before that would take the answer away again. */
static void wait_until_read(int connection) {
  static char rest[64 * 1024];
  uint64_t deadline = now_ms() + REFUSAL_MS;
  (void)shutdown(connection, SHUT_WR);
  for (uint64_t now; (now = now_ms()) < deadline;) {
    struct pollfd ready = {.fd = connection, .events = POLLIN};
    if (poll(&ready, 1, (int)(deadline - now)) <= 0 || read(connection, rest, sizeof(rest)) <= 0) return;
  }
}

static void refuse(int connection, int code) {
  static struct writer writer;
  writer_reset(&writer);
  write_string(&writer, "start a session, as the sandbox has no free process or memory left");
  (void)send_frame(connection, (struct frame_header){.type = SESSION_FAILED, .status = (uint16_t)code}, &writer);
  wait_until_read(connection);
}

static void start_session(int connection, int listener, int proc, int signals) {
  struct worker_link link = workers_link();
  pid_t pid = fork();
  if (pid == 0) {
    (void)close(signals);
    (void)close(DEADLINE_FD);
    workers_leave();
    reset_signals();
    run_session(connection, proc, listener, link);
  }
  if (pid < 0) refuse(connection, errno);
  if (pid > 0 && link.order >= 0) {
    workers_add(pid, link);
  } else {
    close_fd(&link.order);
    close_fd(&link.report);
  }
  (void)close(connection);
}

/* One connection: a session that waits is told to accept it, or a new one is made for it. */
static void accept_session(int listener, int proc, int signals) {
  if (workers_accept()) return;
  int connection = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
  if (connection >= 0) start_session(connection, listener, proc, signals);
}

static void reap_all(int signals) {
  struct signalfd_siginfo info[16];
  while (read(signals, info, sizeof(info)) > 0) continue;
  for (pid_t pid; (pid = waitpid(-1, NULL, WNOHANG)) > 0;) workers_forget(pid);
}

/* For when poll(2) fails, as it always does once a program has lowered init's limit of open files. */
static bool has_struck(void) {
  uint64_t expirations;
  return read(DEADLINE_FD, &expirations, sizeof(expirations)) == (ssize_t)sizeof(expirations);
}

_Noreturn void run_init(int listener, int proc) {
  sigset_t child;
  reset_signals();
  (void)sigemptyset(&child);
  (void)sigaddset(&child, SIGCHLD);
  (void)sigprocmask(SIG_BLOCK, &child, NULL);
  int signals = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
  if (signals < 0) _exit(70);
  for (;;) {
    int timeout;
    struct pollfd watched[3 + MAX_WORKERS] = {
        {.fd = workers_accepting() ? -1 : listener, .events = POLLIN},
        {.fd = signals, .events = POLLIN},
        {.fd = DEADLINE_FD, .events = POLLIN},
    };
    size_t count = 3 + workers_watch(watched + 3, &timeout);
    if (poll(watched, count, timeout) < 0) {
      if (has_struck()) _exit(0);
      continue;
    }
    if (watched[2].revents != 0) _exit(0);
    if ((watched[1].revents & POLLIN) != 0) reap_all(signals);
    if ((watched[0].revents & POLLIN) != 0) accept_session(listener, proc, signals);
    workers_tick();
  }
}

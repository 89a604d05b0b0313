#include "kernel_api.h"

#include "session.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "command.h"
#include "exec_request.h"
#include "frame.h"
#include "io.h"
#include "tree.h"

enum { REQUEST_TIMEOUT_MS = 30000, STRAGGLER_MS = 50, KILL_MS = 5000, LINGER_MS = 2000 };
enum { CHUNK = 64 * 1024, INPUT_CAPACITY = 1024 * 1024, PAGE = 4096 };

/* One of the command's outputs: its first `limit` bytes go to squashd, the rest is drained, so that the command never blocks on it. */
struct output {
  int fd;
  uint16_t type;
  uint32_t left;
  bool truncated;
};

struct session {
  int connection, proc, signals;
  int input;                     /* the command's standard input, or -1 */
  struct output outputs[2];
  struct command command;
  bool exited, answered;
  uint32_t flags;
  uint64_t deadline;             /* of the command; 0 = none */
  size_t input_size, input_done; /* of what `pending` holds */
  bool input_ended;
  size_t payload_used, pending_used, chunk_used; /* of the buffers, at most */
};

static struct session session;
static struct exec_request request;
static _Alignas(PAGE) uint8_t payload[FRAME_MAX_PAYLOAD];
static _Alignas(PAGE) uint8_t pending[INPUT_CAPACITY + FRAME_MAX_PAYLOAD]; /* input on its way to the command, and room for one more frame */
static _Alignas(PAGE) uint8_t chunk[PAGE + CHUNK]; /* of output, behind the place of its frame's header; whole pages, see wipe */
static struct writer writer;

static void note_use(size_t *used, size_t size) {
  if (size > *used) *used = size;
}

/* The first page is likely to be needed again; the others go back, so that neither memory nor later forks pay for one large command. */
static void wipe(uint8_t *buffer, size_t used) {
  memset(buffer, 0, used < PAGE ? used : PAGE);
  if (used > PAGE && madvise(buffer + PAGE, used - PAGE, MADV_DONTNEED) < 0) memset(buffer + PAGE, 0, used - PAGE);
}

/* squashd may be gone; the command goes on all the same, so that a restart of squashd costs no work. */
static void send_chunk(uint16_t type, uint32_t size) {
  struct frame_header header = {.size = size, .type = type};
  if (session.connection < 0) return;
  frame_encode(chunk, &header);
  if (write_full(session.connection, chunk, FRAME_HEADER_SIZE + size) == 0) return;
  close_fd(&session.connection);
  session.connection = -1;
}

/*
 * Closes the connection after the last frame, once squashd has. Input that squashd still sent, and nobody wants any more, must be read before:
 * a socket that is closed with something unread in it breaks the connection, and the answer may be lost.
 */
static void hang_up(void) {
  if (session.connection < 0) return;
  struct pollfd ready = {.fd = session.connection, .events = POLLIN};
  (void)shutdown(session.connection, SHUT_WR);
  for (uint64_t now = now_ms(), deadline = now + LINGER_MS; now < deadline; now = now_ms()) {
    ssize_t count = poll(&ready, 1, (int)(deadline - now)) <= 0 ? 0 : read(session.connection, chunk, sizeof(chunk));
    if (count <= 0) break;
    note_use(&session.chunk_used, (size_t)count);
  }
  close_fd(&session.connection);
  session.connection = -1;
}

static _Noreturn void fail_session(int code, const char *what) {
  writer_reset(&writer);
  write_string(&writer, what);
  if (session.connection >= 0)
    (void)send_frame(session.connection, (struct frame_header){.type = SESSION_FAILED, .status = (uint16_t)code}, &writer);
  hang_up();
  _exit(0);
}

/* Reads one frame into `buffer` and its size; returns its type, or 0 at the end of the stream or when it makes no sense. */
static uint16_t receive(uint8_t *buffer, uint32_t *size) {
  uint8_t bytes[FRAME_HEADER_SIZE];
  struct frame_header header;
  if (read_full(session.connection, bytes, sizeof(bytes)) < 0 || !frame_decode(bytes, &header)) return 0;
  *size = header.size;
  if (read_full(session.connection, buffer, header.size) < 0) return 0;
  return header.type;
}

static void kill_command(uint32_t reason) {
  session.flags |= reason;
  (void)kill_descendants(session.proc, KILL_MS);
}

static void close_input(void) {
  close_fd(&session.input);
  session.input = -1;
}

/* Squashd speaks: more input, its end, or the order to stop. */
static void serve_connection(void) {
  uint32_t size = 0;
  uint16_t type = session.input_size <= INPUT_CAPACITY ? receive(pending + session.input_size, &size) : 0;
  note_use(&session.pending_used, session.input_size + size);
  switch (type) {
    case SESSION_STDIN:
      if (session.input >= 0) session.input_size += size;
      break;
    case SESSION_STDIN_END:
      session.input_ended = true;
      break;
    case SESSION_CANCEL:
      kill_command(SESSION_CANCELLED);
      break;
    default:
      close_fd(&session.connection);
      session.connection = -1;
      session.input_ended = true;
      break;
  }
}

static void feed_input(void) {
  ssize_t count = write(session.input, pending + session.input_done, session.input_size - session.input_done);
  if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (count < 0) { /* the command closed it */
    session.input_size = session.input_done = 0;
    close_input();
    return;
  }
  session.input_done += (size_t)count;
  if (session.input_done == session.input_size) session.input_size = session.input_done = 0;
}

/* Reads what is there; false when there is nothing more for now. */
static bool drain_once(struct output *output) {
  if (output->fd < 0) return false;
  ssize_t count = read(output->fd, chunk + FRAME_HEADER_SIZE, CHUNK);
  if (count < 0 && (errno == EAGAIN || errno == EINTR)) return false;
  if (count <= 0) {
    close_fd(&output->fd);
    output->fd = -1;
    return false;
  }
  note_use(&session.chunk_used, FRAME_HEADER_SIZE + (size_t)count);
  uint32_t kept = (size_t)count < output->left ? (uint32_t)count : output->left;
  if (kept < (uint32_t)count && !output->truncated) output->truncated = true;
  if (kept > 0 && !session.answered) send_chunk(output->type, kept);
  output->left -= kept;
  return true;
}

static void answer(void) {
  static const uint32_t truncated[] = {SESSION_STDOUT_TRUNCATED, SESSION_STDERR_TRUNCATED};
  for (size_t i = 0; i < ARRAY_LEN(truncated); i++)
    if (session.outputs[i].truncated) session.flags |= truncated[i];
  uint32_t code = session.command.exit_code;
  if ((session.flags & SESSION_TIMED_OUT) != 0) code = 124;
  writer_reset(&writer);
  write_u32(&writer, code);
  write_u32(&writer, session.flags | (session.command.signalled ? SESSION_SIGNALLED : 0));
  if (session.connection >= 0) (void)send_frame(session.connection, (struct frame_header){.type = SESSION_EXIT}, &writer);
  hang_up();
  session.answered = true;
  close_input();
}

static bool outputs_open(void) { return session.outputs[0].fd >= 0 || session.outputs[1].fd >= 0; }

/* Reaps all children, orphans included. */
static void reap(void) {
  struct signalfd_siginfo info[16];
  while (read(session.signals, info, sizeof(info)) > 0) continue;
  int status;
  for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
    if (pid != session.command.pid || session.exited) continue;
    session.exited = true;
    session.command.signalled = WIFSIGNALED(status);
    session.command.exit_code = WIFSIGNALED(status) ? 128U + (uint32_t)WTERMSIG(status) : (uint32_t)WEXITSTATUS(status);
  }
}

static int time_left(uint64_t straggler_deadline) {
  uint64_t deadline = session.exited && !session.answered ? straggler_deadline : session.exited ? 0 : session.deadline;
  if (deadline == 0) return -1;
  uint64_t now = now_ms();
  return deadline <= now ? 0 : deadline - now > 3600000 ? 3600000 : (int)(deadline - now);
}

static void watch(uint64_t straggler_deadline) {
  struct pollfd watched[] = {
      {.fd = session.signals, .events = POLLIN},
      {.fd = session.outputs[0].fd, .events = POLLIN},
      {.fd = session.outputs[1].fd, .events = POLLIN},
      {.fd = session.connection, .events = POLLIN},
      {.fd = session.input_size > session.input_done ? session.input : -1, .events = POLLOUT},
  };
  if (poll(watched, ARRAY_LEN(watched), time_left(straggler_deadline)) < 0) return;
  if (watched[1].revents != 0) (void)drain_once(&session.outputs[0]);
  if (watched[2].revents != 0) (void)drain_once(&session.outputs[1]);
  if (watched[4].revents != 0) feed_input();
  if (watched[3].revents != 0) serve_connection();
  if (watched[0].revents != 0) reap();
  if (session.input_ended && session.input_size == 0) close_input();
}

/*
 * Runs until the command has ended and its output is read. A background process that keeps the output open is given a moment for what it
 * still writes, then the answer goes out; after that its output is drained for as long as it lives, so that it never gets a SIGPIPE.
 */
static void pump(void) {
  uint64_t straggler_deadline = 0;
  while (!session.answered || outputs_open()) {
    watch(straggler_deadline);
    if (!session.exited && session.deadline != 0 && now_ms() >= session.deadline) {
      kill_command(SESSION_TIMED_OUT);
      session.deadline = 0;
      reap();
    }
    if (!session.exited || session.answered) continue;
    if (straggler_deadline == 0) {
      straggler_deadline = now_ms() + STRAGGLER_MS;
      for (size_t i = 0; i < ARRAY_LEN(session.outputs); i++)
        while (drain_once(&session.outputs[i])) continue;
    }
    if (!outputs_open() || now_ms() >= straggler_deadline || (session.flags & (SESSION_TIMED_OUT | SESSION_CANCELLED)) != 0) answer();
  }
}

static void read_request(void) {
  uint32_t size = 0;
  struct pollfd ready = {.fd = session.connection, .events = POLLIN};
  if (poll(&ready, 1, REQUEST_TIMEOUT_MS) <= 0) _exit(0);
  if (receive(payload, &size) != SESSION_EXEC) fail_session(EBADMSG, "understand the request");
  session.payload_used = size;
  struct reader reader = {.data = payload, .size = size};
  if (!exec_request_decode(&request, &reader)) fail_session(EBADMSG, "understand the request");
}

/* Once for all connections. */
static int become_reaper(void) {
  sigset_t child;
  (void)prctl(PR_SET_NAME, "sq-session", 0, 0, 0);
  if (prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0) fail_session(errno, "become the reaper of the command");
  (void)sigemptyset(&child);
  (void)sigaddset(&child, SIGCHLD);
  (void)sigprocmask(SIG_BLOCK, &child, NULL);
  (void)signal(SIGPIPE, SIG_IGN);
  int signals = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
  if (signals < 0) fail_session(errno, "watch for the end of the command");
  return signals;
}

static void serve(void) {
  read_request();
  int pipes[3] = {-1, -1, -1};
  const char *failed = command_start(&request, &session.command, pipes);
  if (failed != NULL) fail_session(errno, failed);
  session.input = pipes[0];
  session.outputs[0] = (struct output){.fd = pipes[1], .type = SESSION_STDOUT, .left = request.stdout_limit};
  session.outputs[1] = (struct output){.fd = pipes[2], .type = SESSION_STDERR, .left = request.stderr_limit};
  if (request.timeout_ms != 0) session.deadline = now_ms() + request.timeout_ms;
  pump();
}

/*
 * Whether nothing of the last command is left. What lives on of it is a child of this process, at the latest when its own parent has died,
 * and must be init's before another command comes: the two would be one tree. `__WALL`, so that no kind of child is overlooked.
 */
static bool has_come_to_rest(void) {
  pid_t pid;
  if ((session.flags & (SESSION_TIMED_OUT | SESSION_CANCELLED)) != 0) return false; /* the list of processes has grown memory */
  do pid = waitpid(-1, NULL, WNOHANG | __WALL);
  while (pid > 0);
  return pid < 0 && errno == ECHILD;
}

_Noreturn void run_session(int connection, int proc, int listener, struct worker_link link) {
  session = (struct session){.connection = connection, .proc = proc, .input = -1};
  int signals = become_reaper();
  for (;;) {
    session.signals = signals;
    serve();
    if (link.order < 0 || !has_come_to_rest()) _exit(0);
    wipe(payload, session.payload_used);
    wipe(pending, session.pending_used);
    wipe(chunk, session.chunk_used);
    session = (struct session){.connection = worker_next(link, listener), .proc = proc, .input = -1};
  }
}

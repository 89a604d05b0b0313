#include "kernel_api.h"

#include "host_cells.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>

#include "io.h"

enum { KILL_TIMEOUT_MS = 10000 };

static int watch(const struct host *host, int fd, uint32_t index, bool is_report) {
  struct epoll_event event = {.events = EPOLLIN, .data.u64 = (uint64_t)index | (is_report ? (uint64_t)TAG_MAKER << 32 : 0)};
  return epoll_ctl(host->epoll, EPOLL_CTL_ADD, fd, &event);
}

#define refuse(failure, code, ...) (errno = (code), fail(failure, __VA_ARGS__))

enum outcome op_cell_make(struct host *host, uint32_t request, struct reader *reader, struct failure *failure) {
  struct cell_plan plan = {.index = read_u32(reader)};
  plan.nested_userns = read_u32(reader) != 0;
  if (!reader_finished(reader) || plan.index >= MAX_CELLS) {
    (void)refuse(failure, EBADMSG, "understand the request to make cell %u", plan.index);
    return DONE;
  }
  struct cell *cell = &host->cells[plan.index];
  if (cell->pid != 0 || cell->making) {
    (void)refuse(failure, EEXIST, "make cell %u, which exists", plan.index);
    return DONE;
  }
  plan.network = &host->network;
  plan.uid_base = host->uid_base + plan.index * IDS_PER_CELL;
  int report = cell_start_making(&host->cgroups, &plan, &cell->maker, failure);
  if (report < 0) return DONE;
  *cell = (struct cell){.making = true, .report = report, .pidfd = -1, .maker = cell->maker, .request = request};
  if (watch(host, report, plan.index, true) < 0) _exit(70);
  return LATER;
}

/* Takes a process into the table, if it is the one that was started at `start_time`. */
static int adopt(struct host *host, uint32_t index, pid_t pid, uint64_t start_time, struct failure *failure) {
  struct cell *cell = &host->cells[index];
  uint64_t found;
  int pidfd = sys_pidfd_open(pid);
  if (pidfd < 0) return fail(failure, "open process %d of cell %u", pid, index);
  /* Compared after the pidfd is open: from here on the number cannot come to mean another process. */
  if (process_start_time(pid, &found, failure) < 0) {
    close_fd(&pidfd);
    return -1;
  }
  if (found != start_time) {
    close_fd(&pidfd);
    return refuse(failure, ESRCH, "find the init of cell %u: its process id is another process now", index);
  }
  struct pollfd ended = {.fd = pidfd, .events = POLLIN};
  if (poll(&ended, 1, 0) != 0) { /* it is dead, and only waits for its parent to notice */
    close_fd(&pidfd);
    return refuse(failure, ESRCH, "find the init of cell %u alive", index);
  }
  *cell = (struct cell){.pid = pid, .pidfd = pidfd, .report = -1};
  if (watch(host, pidfd, index, false) < 0) _exit(70);
  return 0;
}

int op_cell_adopt(struct host *host, struct reader *reader, struct failure *failure) {
  uint32_t index = read_u32(reader), pid = read_u32(reader);
  uint64_t start_time = read_u64(reader);
  if (!reader_finished(reader) || index >= MAX_CELLS || pid <= 1) return refuse(failure, EBADMSG, "understand the request to adopt cell %u", index);
  if (host->cells[index].pid != 0 || host->cells[index].making) return refuse(failure, EEXIST, "adopt cell %u, which is known", index);
  return adopt(host, index, (pid_t)pid, start_time, failure);
}

void host_cell_made(struct host *host, uint32_t index) {
  struct cell *cell = &host->cells[index];
  struct cell_report report = {0};
  uint32_t request = cell->request;
  if (read_full(cell->report, &report, sizeof(report)) < 0) (void)refuse(&report.failure, EPIPE, "hear from the maker of cell %u", index);
  report.failure.what[sizeof(report.failure.what) - 1] = '\0';
  /* Other makers hold copies of the pipe, so that closing ours does not end its being watched. */
  (void)epoll_ctl(host->epoll, EPOLL_CTL_DEL, cell->report, NULL);
  close_fd(&cell->report);
  *cell = (struct cell){.pidfd = -1, .report = -1};
  writer_reset(&host->reply);
  if (report.pid > 0 && report.failure.code == 0 && adopt(host, index, report.pid, report.start_time, &report.failure) == 0) {
    write_u32(&host->reply, (uint32_t)report.pid);
    write_u64(&host->reply, report.start_time);
  }
  host_answer(host, request, OP_CELL_MAKE, &report.failure);
}

static void forget_process(struct host *host, struct cell *cell) {
  if (cell->pidfd >= 0) {
    (void)epoll_ctl(host->epoll, EPOLL_CTL_DEL, cell->pidfd, NULL);
    close_fd(&cell->pidfd);
  }
  cell->pidfd = -1;
  cell->pid = 0;
}

/* Removes what a dead cell leaves: socket and groups. Returns false when something still lives in the groups. */
static bool remove_remains(struct host *host, uint32_t index, struct failure *failure) {
  char path[64];
  cell_socket_path(index, path);
  if (unlink(path) < 0 && errno != ENOENT) {
    (void)fail(failure, "remove %s", path);
    return true;
  }
  struct failure busy = {0};
  if (cgroup_remove(&host->cgroups, index, &busy) == 0) return true;
  if (busy.code != EBUSY) {
    *failure = busy;
    return true;
  }
  /* Nothing is left of the pid namespace; what is in the groups came by another way, or is of a cell whose init nobody knew. */
  (void)cgroup_kill(&host->cgroups, index, &busy);
  return false;
}

static void finish_kill(struct host *host, uint32_t index) {
  struct cell *cell = &host->cells[index];
  struct failure failure = {0};
  if (cell->pid != 0) {
    if (now_ms() < cell->deadline) return;
    (void)refuse(&failure, ETIMEDOUT, "kill the init of cell %u", index);
  } else if (!remove_remains(host, index, &failure)) {
    if (now_ms() < cell->deadline) return;
    (void)refuse(&failure, ETIMEDOUT, "empty the cgroup of cell %u", index);
  }
  cell->killing = false;
  host->killing_count--;
  writer_reset(&host->reply);
  host_answer(host, cell->request, OP_CELL_KILL, &failure);
}

enum outcome op_cell_kill(struct host *host, uint32_t request, struct reader *reader, struct failure *failure) {
  uint32_t index = read_u32(reader);
  if (!reader_finished(reader) || index >= MAX_CELLS) {
    (void)refuse(failure, EBADMSG, "understand the request to kill cell %u", index);
    return DONE;
  }
  struct cell *cell = &host->cells[index];
  if (cell->making || cell->killing) {
    (void)refuse(failure, EBUSY, "kill cell %u, which is being made or killed", index);
    return DONE;
  }
  struct failure ignored = {0};
  if (cell->pid != 0) {
    (void)sys_pidfd_send_signal(cell->pidfd, SIGKILL);
    /* A process that version 1 froze dies only when it is thawed. */
    if (host->cgroups.version == 1) (void)cgroup_freeze(&host->cgroups, index, false, &ignored);
  } else {
    cell->pidfd = -1;
    (void)cgroup_freeze(&host->cgroups, index, false, &ignored);
    (void)cgroup_kill(&host->cgroups, index, &ignored);
  }
  cell->killing = true;
  cell->request = request;
  cell->deadline = now_ms() + KILL_TIMEOUT_MS;
  host->killing_count++;
  if (cell->pid == 0) finish_kill(host, index);
  return LATER;
}

void host_cell_died(struct host *host, uint32_t index) {
  struct cell *cell = &host->cells[index];
  uint32_t pid = (uint32_t)cell->pid;
  forget_process(host, cell);
  if (cell->killing) {
    finish_kill(host, index);
    return;
  }
  writer_reset(&host->reply);
  write_u32(&host->reply, index);
  write_u32(&host->reply, pid);
  host_answer(host, 0, EVENT_CELL_DIED, &(struct failure){0});
}

void host_continue_killing(struct host *host) {
  for (uint32_t index = 0, left = host->killing_count; left > 0 && index < MAX_CELLS; index++)
    if (host->cells[index].killing) {
      left--;
      finish_kill(host, index);
    }
}

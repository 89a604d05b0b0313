#include "kernel_api.h"

#include "host_pool.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include "io.h"
#include "subvolumes.h"

struct task {
  uint16_t type;
  char source[SUBVOLUME_NAME_LIMIT + 1], name[SUBVOLUME_NAME_LIMIT + 1];
};

struct report {
  uint64_t bytes;
  struct failure failure;
};

int host_pool(struct host *host, struct failure *failure) {
  if (host->pool <= 0) host->pool = pool_open(host->house.own_mounts, host->house.host_mounts, host->data_dir, failure);
  return host->pool;
}

int op_pool_mount(struct host *host, struct reader *reader, struct failure *failure) {
  const char *image = read_string(reader, NAME_MAX);
  if (!reader_finished(reader) || strchr(image, '/') != NULL || image[0] == '.') return bad_request(failure);
  return pool_mount(host->house.own_mounts, host->house.host_mounts, host->data_dir, image, failure);
}

static void forget_worker(struct host *host, struct pool_worker *worker) {
  (void)epoll_ctl(host->epoll, EPOLL_CTL_DEL, worker->link, NULL);
  close_fd(&worker->link);
  *worker = (struct pool_worker){0};
}

int op_pool_unmount(struct host *host, struct reader *reader, struct failure *failure) {
  if (!reader_finished(reader)) return bad_request(failure);
  for (uint32_t i = 0; i < MAX_POOL_WORKERS; i++) {
    errno = EBUSY;
    if (host->pool_workers[i].busy) return fail(failure, "unmount the pool, which is being worked on");
    if (host->pool_workers[i].started) forget_worker(host, &host->pool_workers[i]); /* it ends, as its link does */
  }
  if (host->pool > 0) close_fd(&host->pool);
  host->pool = 0;
  return pool_unmount(host->house.own_mounts, host->house.host_mounts, host->data_dir, failure);
}

int op_subvolume_use(struct host *host, struct reader *reader, struct failure *failure) {
  const char *name = read_string(reader, SUBVOLUME_NAME_LIMIT);
  uint64_t bytes;
  if (!reader_finished(reader)) return bad_request(failure);
  int pool = host_pool(host, failure);
  if (pool < 0 || subvolume_use(pool, name, &bytes, failure) < 0) return -1;
  write_u64(&host->reply, bytes);
  return 0;
}

static int do_task(int pool, const struct task *task, uint64_t *bytes, struct failure *failure) {
  if (task->type == OP_POOL_FLUSH) return pool_flush(pool, failure);
  if (task->type == OP_SUBVOLUME_REMOVE) return subvolume_remove(pool, task->name, failure);
  if (subvolume_snapshot(pool, task->source, task->name, failure) < 0) return -1;
  return subvolume_use(pool, task->name, bytes, failure);
}

/* In the child, for as long as sq-host lives: forking for each task would cost more than most tasks do. */
static _Noreturn void work(int pool, int link) {
  static struct task task;
  (void)prctl(PR_SET_NAME, "sq-pool", 0, 0, 0);
  int kept[] = {pool, link};
  if (close_all_but(kept, ARRAY_LEN(kept)) < 0) _exit(70);
  while (recv(link, &task, sizeof(task), 0) == (ssize_t)sizeof(task)) {
    struct report report = {0};
    (void)do_task(pool, &task, &report.bytes, &report.failure);
    if (send(link, &report, sizeof(report), MSG_NOSIGNAL) != (ssize_t)sizeof(report)) break;
  }
  _exit(0);
}

static int start_worker(struct host *host, uint32_t number, struct failure *failure) {
  int ends[2];
  int pool = host_pool(host, failure);
  if (pool < 0) return -1;
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0) return fail(failure, "make a link to a worker");
  pid_t pid = fork();
  if (pid == 0) work(pool, ends[1]);
  int code = errno;
  close_fd(&ends[1]);
  errno = code;
  struct epoll_event event = {.events = EPOLLIN, .data.u64 = (uint64_t)number | (uint64_t)TAG_POOL << 32};
  if (pid < 0 || epoll_ctl(host->epoll, EPOLL_CTL_ADD, ends[0], &event) < 0) {
    (void)fail(failure, "start a worker");
    close_fd(&ends[0]); /* where there is one, it ends */
    return -1;
  }
  host->pool_workers[number] = (struct pool_worker){.started = true, .link = ends[0]};
  return 0;
}

static bool read_task(struct reader *reader, uint16_t type, struct task *task) {
  const char *source = type == OP_SUBVOLUME_SNAPSHOT ? read_string(reader, SUBVOLUME_NAME_LIMIT) : "";
  const char *name = type == OP_POOL_FLUSH ? "" : read_string(reader, SUBVOLUME_NAME_LIMIT);
  if (!reader_finished(reader)) return false;
  *task = (struct task){.type = type};
  return format(task->source, sizeof(task->source), "%s", source) == 0 && format(task->name, sizeof(task->name), "%s", name) == 0;
}

/* An idle worker, rather one that is there already. */
static uint32_t choose_worker(const struct host *host) {
  uint32_t chosen = MAX_POOL_WORKERS;
  for (uint32_t i = MAX_POOL_WORKERS; i-- > 0;) {
    const struct pool_worker *worker = &host->pool_workers[i];
    if (!worker->busy && (worker->started || chosen == MAX_POOL_WORKERS || !host->pool_workers[chosen].started)) chosen = i;
  }
  return chosen;
}

enum outcome op_pool_task(struct host *host, uint16_t type, uint32_t request, struct reader *reader, struct failure *failure) {
  static struct task task;
  if (!read_task(reader, type, &task)) {
    (void)bad_request(failure);
    return DONE;
  }
  uint32_t number = choose_worker(host);
  errno = EAGAIN;
  if (number == MAX_POOL_WORKERS) {
    (void)fail(failure, "work on the pool, as %d others do", MAX_POOL_WORKERS);
    return DONE;
  }
  struct pool_worker *worker = &host->pool_workers[number];
  if (!worker->started && start_worker(host, number, failure) < 0) return DONE;
  if (send(worker->link, &task, sizeof(task), MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)sizeof(task)) {
    (void)fail(failure, "ask a worker");
    forget_worker(host, worker);
    return DONE;
  }
  worker->busy = true;
  worker->request = request;
  worker->type = type;
  return LATER;
}

void host_pool_done(struct host *host, uint32_t number) {
  struct pool_worker *worker = &host->pool_workers[number];
  struct pool_worker asked = *worker;
  struct report report = {0};
  if (!asked.started) return;
  if (recv(asked.link, &report, sizeof(report), MSG_DONTWAIT) != (ssize_t)sizeof(report)) {
    report = (struct report){0};
    errno = EPIPE;
    (void)fail(&report.failure, "hear from a worker of the pool, which was killed");
    forget_worker(host, worker);
  }
  worker->busy = false;
  if (!asked.busy) return;
  report.failure.what[sizeof(report.failure.what) - 1] = '\0';
  writer_reset(&host->reply);
  if (report.failure.code == 0 && asked.type == OP_SUBVOLUME_SNAPSHOT) write_u64(&host->reply, report.bytes);
  host_answer(host, asked.request, asked.type, &report.failure);
}

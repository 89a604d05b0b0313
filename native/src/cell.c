#include "kernel_api.h"

#include "cell.h"

#include <errno.h>
#include <grp.h>
#include <linux/netlink.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "cell_files.h"
#include "confine.h"
#include "deadline.h"
#include "init.h"
#include "io.h"
#include "netlink.h"

enum { MAKE_TIMEOUT_MS = 20000 };

/* What a new init tells its maker: `MAP` when it waits for its user mapping, then READY, or a failure. */
enum child_step { STEP_MAP = 1, STEP_READY, STEP_FAILED };

struct child_message {
  enum child_step step;
  struct failure failure;
};

void cell_socket_path(uint32_t index, char path[64]) { (void)format(path, 64, "/run/cells/%u.sock", index); }

int process_start_time(pid_t pid, uint64_t *start_time, struct failure *failure) {
  char path[64], text[1024];
  (void)format(path, sizeof(path), "/proc/%d/stat", pid);
  if (read_file_at(AT_FDCWD, path, text, sizeof(text)) < 0) return fail(failure, "read %s", path);
  const char *field = strrchr(text, ')'); /* the name before it may hold anything */
  for (int i = 2; field != NULL && i < 22; i++) field = strchr(field + 1, ' ');
  if (field == NULL) {
    errno = EPROTO;
    return fail(failure, "understand %s", path);
  }
  *start_time = strtoull(field + 1, NULL, 10);
  return 0;
}

static int listen_at(uint32_t index, struct failure *failure) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  char path[64];
  cell_socket_path(index, path);
  (void)format(address.sun_path, sizeof(address.sun_path), "%s", path);
  if (unlink(path) < 0 && errno != ENOENT) return fail(failure, "remove old socket %s", path);
  int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (listener < 0) return fail(failure, "make init socket");
  if (bind(listener, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(listener, 1024) < 0) {
    close_fd(&listener);
    return fail(failure, "listen at %s", path);
  }
  return listener;
}

static int raise_loopback(struct failure *failure) {
  AUTO_CLOSE int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
  if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &request) < 0) return fail(failure, "raise the loopback interface");
  return 0;
}

/* Real root until here; from here on the cell's root, which is nobody outside. */
static int become_cell_root(struct failure *failure) {
  if (setgroups(0, NULL) < 0) return fail(failure, "drop groups");
  if (setresgid(0, 0, 0) < 0 || setresuid(0, 0, 0) < 0) return fail(failure, "become the cell's root");
  return 0;
}

static int tell(int fd, enum child_step step, const struct failure *failure) {
  struct child_message message = {.step = step};
  if (failure != NULL) message.failure = *failure;
  return write_full(fd, &message, sizeof(message));
}

/* Keeps only `listener`, `proc` and `sync`, as descriptors 3, 4 and 5, and makes the deadline's; standard input, output and error are /dev/null. */
static int keep_descriptors(int *listener, int *proc, int *sync, struct failure *failure) {
  AUTO_CLOSE int null = open("/dev/null", O_RDWR | O_CLOEXEC);
  int high[3] = {fcntl(*listener, F_DUPFD_CLOEXEC, 64), fcntl(*proc, F_DUPFD_CLOEXEC, 64), fcntl(*sync, F_DUPFD_CLOEXEC, 64)};
  if (null < 0 || high[0] < 0 || high[1] < 0 || high[2] < 0) return fail(failure, "copy descriptors");
  for (int fd = 0; fd < 3; fd++)
    if (dup2(null, fd) < 0) return fail(failure, "close standard descriptors");
  for (int i = 0; i < 3; i++)
    if (dup3(high[i], 3 + i, O_CLOEXEC) < 0) return fail(failure, "place descriptors");
  AUTO_CLOSE int timer = deadline_open();
  if (timer < 0) return fail(failure, "make the timer of its deadline");
  if (timer != DEADLINE_FD && dup3(timer, DEADLINE_FD, O_CLOEXEC) < 0) return fail(failure, "place descriptors");
  timer = -1;
  if (sys_close_range(DEADLINE_FD + 1, ~0U, 0) < 0) return fail(failure, "close inherited descriptors");
  null = -1;
  *listener = 3;
  *proc = 4;
  *sync = 5;
  return 0;
}

/* Loopback, and where there is a network the link to it. */
static int set_up_network(const struct cell_plan *plan, int route, struct failure *failure) {
  struct link_plan link = network_link(plan->network, plan->index);
  if (raise_loopback(failure) < 0) return -1;
  return link.wanted ? link_make(&link, route, plan->network->namespace, failure) : 0;
}

/* `route` is a netlink socket of the host's network namespace. */
static int set_up_child(const struct cgroups *cgroups, const struct cell_plan *plan, int route, int *listener, int *proc, int *sync,
                        struct failure *failure) {
  char go;
  if (cgroup_join(cgroups, plan->index, failure) < 0) return -1;
  /* As the host's root, so that nothing inside can have back what squashd may have been given: to be spared where memory runs out. */
  (void)write_file_at(AT_FDCWD, "/proc/self/oom_score_adj", "0");
  if (unshare(CLONE_NEWCGROUP) < 0) return fail(failure, "make cgroup namespace");
  if (set_up_network(plan, route, failure) < 0) return -1;
  if (make_skeleton(plan->uid_base, failure) < 0) return -1;
  *proc = open("/proc", O_DIRECTORY | O_RDONLY | O_CLOEXEC);
  if (*proc < 0) return fail(failure, "open /proc");
  if (keep_descriptors(listener, proc, sync, failure) < 0) return -1;
  if (unshare(CLONE_NEWUSER) < 0) return fail(failure, "make user namespace");
  if (tell(*sync, STEP_MAP, NULL) < 0 || read_full(*sync, &go, 1) < 0) return fail(failure, "wait for the user mapping");
  if (become_cell_root(failure) < 0) return -1;
  (void)umask(022);
  return confine(plan->nested_userns, failure);
}

static _Noreturn void run_child(const struct cgroups *cgroups, const struct cell_plan *plan, int route, int listener, int sync) {
  struct failure failure = {0};
  int proc = -1;
  (void)prctl(PR_SET_NAME, "sq-init", 0, 0, 0);
  if (set_up_child(cgroups, plan, route, &listener, &proc, &sync, &failure) < 0) {
    (void)tell(sync, STEP_FAILED, &failure);
    _exit(1);
  }
  if (tell(sync, STEP_READY, NULL) < 0) _exit(1);
  (void)close(sync);
  run_init(listener, proc);
}

static int map_ids(pid_t pid, uint32_t base, struct failure *failure) {
  static const char *const files[] = {"uid_map", "gid_map"};
  for (size_t i = 0; i < ARRAY_LEN(files); i++) {
    char path[64], map[64];
    (void)format(path, sizeof(path), "/proc/%d/%s", pid, files[i]);
    (void)format(map, sizeof(map), "0 %u %u\n", base, (unsigned)IDS_PER_CELL);
    if (write_file_at(AT_FDCWD, path, map) < 0) return fail(failure, "write %s", path);
  }
  return 0;
}

/* Waits for the child's next message and checks that it is the expected one. */
static int expect(int sync, enum child_step step, struct failure *failure) {
  struct child_message message;
  struct pollfd ready = {.fd = sync, .events = POLLIN};
  int count = poll(&ready, 1, MAKE_TIMEOUT_MS);
  if (count == 0) errno = ETIMEDOUT;
  if (count <= 0 || read_full(sync, &message, sizeof(message)) < 0) return fail(failure, "hear from the new init");
  if (message.step == STEP_FAILED) {
    *failure = message.failure;
    return -1;
  }
  if (message.step == step) return 0;
  errno = EPROTO;
  return fail(failure, "follow the new init's steps");
}

/* The cell must be in none of the host's namespaces: a kernel that ignored a flag would otherwise go unnoticed. */
static int prove_isolation(pid_t pid, struct failure *failure) {
  static const char *const kinds[] = {"user", "mnt", "pid", "ipc", "uts", "net", "cgroup"};
  for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
    char path[64];
    struct stat theirs, ours;
    (void)format(path, sizeof(path), "/proc/%d/ns/%s", pid, kinds[i]);
    if (stat(path, &theirs) < 0) return fail(failure, "look at %s", path);
    (void)format(path, sizeof(path), "/proc/self/ns/%s", kinds[i]);
    if (stat(path, &ours) < 0) return fail(failure, "look at %s", path);
    if (theirs.st_ino == ours.st_ino && theirs.st_dev == ours.st_dev) {
      errno = EXDEV;
      return fail(failure, "isolate the %s namespace", kinds[i]);
    }
  }
  return 0;
}

static int make_cell(const struct cgroups *cgroups, const struct cell_plan *plan, struct cell_report *report, int *pidfd) {
  struct failure *failure = &report->failure;
  int ends[2];
  AUTO_CLOSE int listener = listen_at(plan->index, failure);
  if (listener < 0 || cgroup_make(cgroups, plan->index, failure) < 0) return -1;
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0) return fail(failure, "make sync sockets");
  /* One of its own: sq-host's is shared by all makers, who would take each other's answers. */
  AUTO_CLOSE int route = plan->network->wanted ? nl_open(NETLINK_ROUTE, failure) : -1;
  if (plan->network->wanted && route < 0) return -1;
  AUTO_CLOSE int ours = ends[0];
  AUTO_CLOSE int theirs = ends[1];
  /* CLONE_PARENT: the init is sq-host's child, which outlives this maker, and is told of its end. */
  struct clone_args args = {.flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET | CLONE_PARENT | CLONE_PIDFD,
                            .pidfd = (uint64_t)(uintptr_t)pidfd};
  pid_t pid = sys_clone3(&args);
  if (pid < 0) return fail(failure, "make namespaces");
  if (pid == 0) run_child(cgroups, plan, route, listener, theirs);
  report->pid = pid;
  close_fd(&theirs);
  theirs = -1;
  if (expect(ours, STEP_MAP, failure) < 0 || map_ids(pid, plan->uid_base, failure) < 0) return -1;
  if (write_full(ours, "g", 1) < 0) return fail(failure, "let the new init go on");
  if (expect(ours, STEP_READY, failure) < 0) return -1;
  if (prove_isolation(pid, failure) < 0) return -1;
  struct link_plan link = network_link(plan->network, plan->index);
  if (link.wanted && link_open(&link, plan->network->route, failure) < 0) return -1;
  return process_start_time(pid, &report->start_time, failure);
}

/* The undo of make_cell. The killed init is reaped by sq-host, which is its parent; only then can its groups go. */
static void unmake_cell(const struct cgroups *cgroups, const struct cell_plan *plan, int pidfd) {
  char path[64];
  if (pidfd >= 0) (void)sys_pidfd_send_signal(pidfd, SIGKILL);
  cell_socket_path(plan->index, path);
  (void)unlink(path);
  for (int attempt = 0; attempt < 200; attempt++) {
    struct failure failure = {0};
    if (cgroup_remove(cgroups, plan->index, &failure) == 0 || failure.code != EBUSY) return;
    (void)poll(NULL, 0, 10);
  }
}

int cell_start_making(const struct cgroups *cgroups, const struct cell_plan *plan, pid_t *maker, struct failure *failure) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) < 0) return fail(failure, "make report pipe");
  pid_t pid = fork();
  if (pid < 0) {
    close_fd(&ends[0]);
    close_fd(&ends[1]);
    return fail(failure, "fork a maker");
  }
  if (pid == 0) {
    struct cell_report report = {0};
    int pidfd = -1;
    if (make_cell(cgroups, plan, &report, &pidfd) < 0) {
      unmake_cell(cgroups, plan, pidfd);
      report.pid = 0;
    }
    _exit(write_full(ends[1], &report, sizeof(report)) < 0 ? 1 : 0);
  }
  close_fd(&ends[1]);
  *maker = pid;
  return ends[0];
}

/*
 * Attacks on a sandbox, tried from its inside; the same attacks run on the host, without the protection, are the tests' controls.
 * Usage: probe ATTACK [ARGUMENT…]. Prints one line, "escaped: what was got" (status 0) or "refused: ERRNO" (status 1); a usage error is 2.
 * Nothing is written to what an attack opens: being able to open it for writing is the success.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/netlink.h>
#include <linux/perf_event.h>
#include <linux/rtnetlink.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#define COUNT(list) (sizeof(list) / sizeof((list)[0]))

static const struct {
  int code;
  const char *name;
} names[] = {
#define NAME(code) {code, #code}
    NAME(EPERM),   NAME(ENOENT),  NAME(ESRCH),  NAME(EIO),    NAME(ENXIO),        NAME(EBADF),           NAME(EAGAIN),     NAME(ENOMEM),
    NAME(EACCES),  NAME(EFAULT),  NAME(EBUSY),  NAME(EEXIST), NAME(EXDEV),        NAME(ENODEV),          NAME(ENOTDIR),    NAME(EISDIR),
    NAME(EINVAL),  NAME(ENFILE),  NAME(EMFILE), NAME(ENOTTY), NAME(ETXTBSY),      NAME(EFBIG),           NAME(ENOSPC),     NAME(EROFS),
    NAME(ENOSYS),  NAME(ELOOP),   NAME(EUSERS), NAME(ENODATA), NAME(EAFNOSUPPORT), NAME(EPROTONOSUPPORT), NAME(EOPNOTSUPP), NAME(ESTALE),
    NAME(ENOEXEC), NAME(EDQUOT),  NAME(ETIMEDOUT), NAME(ESOCKTNOSUPPORT), NAME(ENOTBLK), NAME(EPROTOTYPE), NAME(ENOKEY), NAME(EINTR),
#undef NAME
};

static _Noreturn void escaped(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  (void)fputs("escaped: ", stdout);
  (void)vfprintf(stdout, format, arguments);
  (void)fputc('\n', stdout);
  va_end(arguments);
  exit(0);
}

static _Noreturn void refused(int code) {
  const char *name = NULL;
  for (size_t i = 0; i < COUNT(names); i++)
    if (names[i].code == code) name = names[i].name;
  if (name != NULL) (void)printf("refused: %s\n", name);
  else (void)printf("refused: errno %d\n", code);
  exit(1);
}

static _Noreturn void usage(const char *what) {
  (void)fprintf(stderr, "probe: %s\n", what);
  exit(2);
}

static _Noreturn void verdict(long result, const char *what) {
  if (result >= 0) escaped("%s", what);
  refused(errno);
}

/* For calls that must not do their work even in a control: arguments that are wrong only after the question of permission. */
static _Noreturn void verdict_past(long result, int code, const char *what) {
  if (result < 0 && errno == code) escaped("%s is past the question of permission", what);
  verdict(result, what);
}

static const char *argument(char **list, int index) {
  for (int i = 0; i <= index; i++)
    if (list[i] == NULL) usage("an argument is missing");
  return list[index];
}

static long number(char **list, int index) { return strtol(argument(list, index), NULL, 0); }

/* Calls `action` with the name of each process but this one, pid 1 first, so that its refusal is the one that is remembered. */
static int each_process(int (*action)(const char *pid, const char *kind), const char *kind) {
  char own[16];
  (void)snprintf(own, sizeof(own), "%d", getpid());
  int code = strcmp(own, "1") == 0 ? 0 : action("1", kind);
  DIR *directory = opendir("/proc");
  if (directory == NULL) return errno;
  for (const struct dirent *entry; (entry = readdir(directory)) != NULL;) {
    if (entry->d_name[0] < '1' || entry->d_name[0] > '9' || strcmp(entry->d_name, own) == 0) continue;
    int other = action(entry->d_name, kind);
    if (code == 0) code = other;
  }
  (void)closedir(directory);
  return code;
}

static int wait_for(pid_t child) {
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
  return status;
}

static uint64_t now_ms(void) {
  struct timespec now;
  (void)clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* ---- files ---- */

static _Noreturn void attack_open_write(char **list) {
  verdict(open(argument(list, 0), O_WRONLY | O_NONBLOCK | O_CLOEXEC), "opened for writing");
}

static _Noreturn void attack_read(char **list) {
  char byte;
  int fd = open(argument(list, 0), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) refused(errno);
  ssize_t count = read(fd, &byte, 1);
  if (count == 0) refused(ENODATA);
  verdict(count, "read");
}

static void walk(const char *folder, int depth) {
  DIR *directory = opendir(folder);
  if (directory == NULL) return;
  for (const struct dirent *entry; (entry = readdir(directory)) != NULL;) {
    char path[4096];
    struct stat info;
    bool is_process = strcmp(folder, "/proc") == 0 && entry->d_name[0] >= '1' && entry->d_name[0] <= '9';
    if (entry->d_name[0] == '.' || is_process) continue;
    if (snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name) >= (int)sizeof(path) || lstat(path, &info) < 0) continue;
    if (S_ISDIR(info.st_mode) && depth < 12) walk(path, depth + 1);
    if (!S_ISREG(info.st_mode)) continue;
    int fd = open(path, O_WRONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
    if (fd >= 0) escaped("%s can be written", path);
  }
  (void)closedir(directory);
}

/* Looks for any file below a folder that can be opened for writing; processes' own files in /proc are left out. */
static _Noreturn void attack_walk(char **list) {
  walk(argument(list, 0), 0);
  refused(EACCES);
}

/* The devices that every container has; anything else in /dev is somebody's hardware or kernel interface. */
static bool is_harmless(dev_t device) {
  unsigned group = major(device), item = minor(device);
  return (group == 1 && (item == 3 || item == 5 || item == 7 || item == 8 || item == 9)) || (group == 5 && (item == 0 || item == 2)) || group == 136;
}

static void search_devices(const char *folder, int depth) {
  DIR *directory = opendir(folder);
  if (directory == NULL) return;
  for (const struct dirent *entry; (entry = readdir(directory)) != NULL;) {
    char path[4096];
    struct stat info;
    if (entry->d_name[0] == '.') continue;
    if (snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name) >= (int)sizeof(path) || lstat(path, &info) < 0) continue;
    if (S_ISDIR(info.st_mode) && depth < 6) search_devices(path, depth + 1);
    if (S_ISBLK(info.st_mode)) escaped("%s is a block device", path);
    if (S_ISCHR(info.st_mode) && !is_harmless(info.st_rdev)) escaped("%s is device %u:%u", path, major(info.st_rdev), minor(info.st_rdev));
  }
  (void)closedir(directory);
}

static _Noreturn void attack_devices(char **list) {
  search_devices(argument(list, 0), 0);
  refused(ENODEV);
}

static _Noreturn void attack_mknod(char **list) {
  const char *path = argument(list, 0);
  mode_t type = argument(list, 1)[0] == 'b' ? S_IFBLK : S_IFCHR;
  if (mknod(path, type | 0600, makedev((unsigned)number(list, 2), (unsigned)number(list, 3))) < 0) refused(errno);
  int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  int code = errno;
  (void)unlink(path);
  errno = code;
  verdict(fd, "made and opened a device");
}

static int follow(const char *pid, const char *kind) {
  char path[64];
  struct stat own, other;
  (void)snprintf(path, sizeof(path), "/proc/%s/%s", pid, kind);
  int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return errno;
  if (fchdir(fd) < 0) return errno;
  for (int i = 0; i < 64; i++)
    if (chdir("..") < 0) return errno;
  if (stat("/", &own) < 0 || stat(".", &other) < 0) return errno;
  if (own.st_dev != other.st_dev || own.st_ino != other.st_ino) escaped("%s leads to another root", path);
  (void)close(fd);
  return 0;
}

/* /proc/PID/root and /proc/PID/cwd of every process: does one lead out, itself or by its parents? */
static _Noreturn void attack_follow(char **list) {
  int code = each_process(follow, argument(list, 0));
  refused(code == 0 ? ENOENT : code);
}

static _Noreturn void attack_chroot(char **list) {
  struct stat before, after;
  (void)list;
  if (stat("/", &before) < 0) refused(errno);
  int root = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  (void)mkdir("/tmp", 0755);
  (void)mkdir("/tmp/jail", 0755);
  if (root < 0 || chroot("/tmp/jail") < 0 || fchdir(root) < 0) refused(errno);
  for (int i = 0; i < 64; i++)
    if (chdir("..") < 0) refused(errno);
  if (chroot(".") < 0 || stat("/", &after) < 0) refused(errno);
  if (before.st_dev != after.st_dev || before.st_ino != after.st_ino) escaped("the root is another one");
  refused(EXDEV);
}

/* ---- descriptors and processes ---- */

/* Further descriptors than the standard ones, and then those of the standard ones that are neither pipes nor /dev/null. */
static void check_descriptors(const char *folder, bool standard) {
  DIR *directory = opendir(folder);
  if (directory == NULL) return;
  for (const struct dirent *entry; (entry = readdir(directory)) != NULL;) {
    char target[256] = "";
    int fd = atoi(entry->d_name);
    if (entry->d_name[0] == '.' || fd == dirfd(directory)) continue;
    if (readlinkat(dirfd(directory), entry->d_name, target, sizeof(target) - 1) < 0) continue;
    bool is_plain = strncmp(target, "pipe:", 5) == 0 || strcmp(target, "/dev/null") == 0;
    if (standard == (fd <= 2) && (fd > 2 || !is_plain)) escaped("descriptor %d is %s", fd, target);
  }
  (void)closedir(directory);
}

static int list_descriptors(const char *pid, const char *kind) {
  char path[64];
  (void)snprintf(path, sizeof(path), "/proc/%s/%s", pid, kind);
  DIR *directory = opendir(path);
  if (directory == NULL) return errno;
  (void)closedir(directory);
  return strcmp(pid, "1") == 0 ? -1 : 0;
}

static _Noreturn void attack_descriptors(char **list) {
  (void)list;
  check_descriptors("/proc/self/fd", false);
  check_descriptors("/proc/self/fd", true);
  int code = each_process(list_descriptors, "fd");
  if (code == -1) escaped("pid 1 shows its descriptors");
  refused(code);
}

/*
 * CVE-2019-5736: waits for a process with the given name, keeps a descriptor of its program, and opens that for writing once the process
 * has ended.
 */
static _Noreturn void attack_overwrite(char **list) {
  const char *wanted = argument(list, 0);
  uint64_t deadline = now_ms() + (uint64_t)number(list, 1) * 1000;
  while (now_ms() < deadline) {
    DIR *directory = opendir("/proc");
    if (directory == NULL) refused(errno);
    for (const struct dirent *entry; (entry = readdir(directory)) != NULL;) {
      char path[300], name[32] = "";
      if (entry->d_name[0] < '1' || entry->d_name[0] > '9') continue;
      (void)snprintf(path, sizeof(path), "/proc/%s/comm", entry->d_name);
      int fd = open(path, O_RDONLY | O_CLOEXEC);
      if (fd < 0) continue;
      ssize_t count = read(fd, name, sizeof(name) - 1);
      (void)close(fd);
      if (count <= 0 || strcspn(name, "\n") != strlen(wanted) || strncmp(name, wanted, strlen(wanted)) != 0) continue;
      (void)snprintf(path, sizeof(path), "/proc/%s/exe", entry->d_name);
      int program = open(path, O_RDONLY | O_CLOEXEC);
      if (program < 0) {
        if (errno == ENOENT || errno == ESRCH) continue;
        refused(errno);
      }
      (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", program);
      for (int again; (again = open(path, O_WRONLY | O_CLOEXEC)) >= 0 || errno == ETXTBSY;) {
        if (again >= 0) escaped("opened the program for writing");
        if (now_ms() > deadline) refused(ETXTBSY);
        (void)usleep(1000);
      }
      refused(errno);
    }
    (void)closedir(directory);
  }
  refused(ETIMEDOUT);
}

static _Noreturn void attack_kill(char **list) { verdict(kill((pid_t)number(list, 0), 0), "may send signals"); }

static _Noreturn void attack_pidfd(char **list) {
  verdict(syscall(SYS_pidfd_open, (pid_t)number(list, 0), 0), "has a handle on the process");
}

static _Noreturn void attack_ptrace(char **list) {
  verdict(ptrace(PTRACE_SEIZE, (pid_t)number(list, 0), NULL, NULL), "traces the process");
}

static _Noreturn void attack_vm_write(char **list) {
  char byte = 0;
  struct iovec local = {&byte, 1}, remote = {(void *)16, 1}; /* nothing is mapped there */
  verdict_past(process_vm_writev((pid_t)number(list, 0), &local, 1, &remote, 1, 0), EFAULT, "writing to its memory");
}

static _Noreturn void attack_memory_file(char **list) {
  char path[64];
  (void)snprintf(path, sizeof(path), "/proc/%ld/mem", number(list, 0));
  verdict(open(path, O_RDWR | O_CLOEXEC), "opened its memory");
}

static _Noreturn void attack_pidfd_getfd(char **list) {
  int pidfd = (int)syscall(SYS_pidfd_open, (pid_t)number(list, 0), 0);
  if (pidfd < 0) refused(errno);
  verdict(syscall(SYS_pidfd_getfd, pidfd, 0, 0), "took a descriptor");
}

/* Lets a process run only when nobody else wants to. */
static _Noreturn void attack_idle(char **list) {
  struct sched_param none = {0};
  verdict(syscall(SYS_sched_setscheduler, (pid_t)number(list, 0), SCHED_IDLE, &none), "put it behind all others");
}

/* Processes that need all the time that there is. */
static _Noreturn void run_spin(char **list) {
  for (long left = number(list, 0); left > 0; left--) {
    pid_t pid = fork();
    if (pid < 0) refused(errno);
    if (pid == 0)
      for (;;) continue;
  }
  escaped("they run");
}

static int join(const char *pid, const char *kind) {
  char path[64], own_path[64];
  struct stat own, other;
  (void)snprintf(path, sizeof(path), "/proc/%s/ns/%s", pid, kind);
  (void)snprintf(own_path, sizeof(own_path), "/proc/self/ns/%s", kind);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return errno;
  if (fstat(fd, &other) < 0 || stat(own_path, &own) < 0) return errno;
  int code = 0;
  if (own.st_ino != other.st_ino) {
    if (setns(fd, 0) == 0) escaped("joined %s", path);
    code = errno;
  }
  (void)close(fd);
  return code;
}

static _Noreturn void attack_join(char **list) {
  int code = each_process(join, argument(list, 0));
  refused(code == 0 ? ESRCH : code);
}

/* Joins a namespace that this process is in already, which tells whether the call itself is allowed. */
static _Noreturn void attack_setns(char **list) {
  char path[64];
  (void)snprintf(path, sizeof(path), "/proc/self/ns/%s", argument(list, 0));
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) refused(errno);
  verdict(setns(fd, 0), "may join namespaces");
}

/* ---- mounts and namespaces ---- */

static _Noreturn void attack_mount(char **list) {
  const char *type = argument(list, 0), *source = argument(list, 1), *target = argument(list, 2);
  const char *options = list[3];
  unsigned long flags = 0;
  if (strcmp(type, "bind") == 0) flags = MS_BIND;
  if (strcmp(type, "remount-rw") == 0) flags = MS_REMOUNT | MS_BIND;
  verdict(mount(source, target, flags == 0 ? type : NULL, flags, options), "mounted");
}

static _Noreturn void attack_umount(char **list) { verdict(umount2(argument(list, 0), MNT_DETACH), "unmounted"); }

/* Mounts a cgroup hierarchy of version 1 and opens a file of its root: release_agent names a program that the host runs as root. */
static _Noreturn void attack_cgroup_file(char **list) {
  const char *target = argument(list, 0);
  char path[4096];
  if (mount("none", target, "cgroup", 0, argument(list, 1)) < 0) refused(errno);
  (void)snprintf(path, sizeof(path), "%s/%s", target, argument(list, 2));
  int fd = open(path, O_WRONLY | O_CLOEXEC);
  int code = errno;
  if (fd >= 0) (void)close(fd);
  (void)umount2(target, MNT_DETACH);
  errno = code;
  verdict(fd, "opened for writing");
}

static _Noreturn void attack_unshare(char **list) { verdict(unshare((int)number(list, 0)), "has a new namespace"); }

static _Noreturn void attack_clone(char **list) {
  long child = syscall(SYS_clone, number(list, 0) | SIGCHLD, NULL, NULL, NULL, NULL);
  if (child == 0) _exit(0);
  if (child > 0) (void)wait_for((pid_t)child);
  verdict(child, "has a child in a new namespace");
}

static _Noreturn void attack_clone3(char **list) {
  uint64_t arguments[8] = {(uint64_t)number(list, 0), 0, 0, 0, SIGCHLD, 0, 0, 0};
  long child = syscall(SYS_clone3, arguments, sizeof(arguments));
  if (child == 0) _exit(0);
  if (child > 0) (void)wait_for((pid_t)child);
  verdict(child, "has a child in a new namespace");
}

static _Noreturn void attack_open_tree(char **list) {
  verdict(syscall(SYS_open_tree, AT_FDCWD, argument(list, 0), 1 /* OPEN_TREE_CLONE */), "has a copy of the mount");
}

static _Noreturn void attack_fsopen(char **list) { verdict(syscall(SYS_fsopen, argument(list, 0), 0), "has a filesystem context"); }

static _Noreturn void attack_move_mount(char **list) {
  (void)list;
  verdict_past(syscall(SYS_move_mount, -1, "", -1, "", 0), ENOENT, "moving mounts");
}

static _Noreturn void attack_pivot(char **list) {
  (void)list;
  verdict_past(syscall(SYS_pivot_root, "/missing", "/missing"), ENOENT, "changing the root");
}

/* ---- sockets and terminals ---- */

static _Noreturn void attack_socket(char **list) {
  verdict(socket((int)number(list, 0), (int)number(list, 1), (int)number(list, 2)), "has a socket");
}

/* Asks the kernel to take the loopback interface down. */
static _Noreturn void attack_link_down(char **list) {
  struct {
    struct nlmsghdr header;
    struct ifinfomsg link;
  } request = {.header = {.nlmsg_len = sizeof(request), .nlmsg_type = RTM_NEWLINK, .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK},
               .link = {.ifi_index = 1, .ifi_change = 1 /* IFF_UP */}};
  struct {
    struct nlmsghdr header;
    struct nlmsgerr error;
    char rest[256];
  } answer;
  (void)list;
  int fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
  if (fd < 0 || send(fd, &request, sizeof(request), 0) < 0 || recv(fd, &answer, sizeof(answer), 0) < 0) refused(errno);
  errno = -answer.error.error;
  verdict(answer.error.error == 0 ? 0 : -1, "configures the network");
}

static int own_terminal(void) {
  int lock = 0, item = 0;
  char path[32];
  int primary = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC);
  if (primary < 0 || ioctl(primary, TIOCSPTLCK, &lock) < 0 || ioctl(primary, TIOCGPTN, &item) < 0) usage("there are no terminals");
  (void)snprintf(path, sizeof(path), "/dev/pts/%d", item);
  (void)setsid();
  int fd = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);
  if (fd < 0 || ioctl(fd, TIOCSCTTY, 0) < 0) usage("cannot have a terminal");
  return fd;
}

static const char *signal_name(int number) {
  switch (number) {
  case SIGSYS: return "SIGSYS";
  case SIGSEGV: return "SIGSEGV";
  case SIGILL: return "SIGILL";
  case SIGBUS: return "SIGBUS";
  case SIGTRAP: return "SIGTRAP";
  case SIGKILL: return "SIGKILL";
  case SIGABRT: return "SIGABRT";
  default: return NULL;
  }
}

/* Runs `action` in a child, which is not a group leader and so can have a terminal of its own. */
static _Noreturn void in_child(void (*action)(void)) {
  (void)fflush(stdout);
  pid_t child = fork();
  if (child == 0) {
    action();
    _exit(2);
  }
  int status = child < 0 ? 2 << 8 : wait_for(child);
  if (WIFSIGNALED(status)) {
    const char *name = signal_name(WTERMSIG(status));
    if (name != NULL) (void)printf("refused: %s\n", name);
    else (void)printf("refused: signal %d\n", WTERMSIG(status));
    exit(1);
  }
  exit(WEXITSTATUS(status));
}

static void push_character(void) { verdict(ioctl(own_terminal(), TIOCSTI, "x"), "pushed a character into the terminal"); }

/* A pseudo terminal is no console: ENOTTY says that the kernel would have looked. The upper half of the number must not matter. */
static void ask_console(void) {
  char what = 6;
  verdict_past(syscall(SYS_ioctl, own_terminal(), TIOCLINUX | 0x100000000UL, &what), ENOTTY, "asking the console");
}

static _Noreturn void attack_tiocsti(char **list) {
  (void)list;
  in_child(push_character);
}

static _Noreturn void attack_tioclinux(char **list) {
  (void)list;
  in_child(ask_console);
}

/* ---- system calls ---- */

static void call_32_bit(void) {
  long result = 20; /* getpid */
  __asm__ volatile("int $0x80" : "+a"(result) : : "memory", "rcx", "r8", "r9", "r10", "r11");
  if (result == getpid()) escaped("32-bit calls are answered");
  refused((int)-result);
}

static void call_x32(void) { verdict(syscall(0x40000000L | 39), "x32 calls are answered"); }

static _Noreturn void attack_int80(char **list) {
  (void)list;
  in_child(call_32_bit);
}

static _Noreturn void attack_x32(char **list) {
  (void)list;
  in_child(call_x32);
}

/* Opens the host's root directory by its number, which is 2 in ext4, or this root by its own handle. */
static _Noreturn void attack_handle(char **list) {
  struct {
    struct file_handle handle;
    uint32_t words[32];
  } file = {.handle = {.handle_bytes = 8, .handle_type = 1}, .words = {2, 0}};
  int mount_id;
  (void)list;
  int root = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  int fd = open_by_handle_at(root, &file.handle, O_RDONLY);
  if (fd >= 0) escaped("opened a directory by its number");
  if (errno != ESTALE && errno != EOPNOTSUPP) refused(errno);
  file.handle.handle_bytes = sizeof(file.words);
  if (name_to_handle_at(AT_FDCWD, "/", &file.handle, &mount_id, 0) < 0) refused(errno);
  verdict(open_by_handle_at(root, &file.handle, O_RDONLY), "opened a directory by its handle");
}

static long do_bpf(void) {
  union bpf_attr attr = {.map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 4, .max_entries = 1};
  return syscall(SYS_bpf, BPF_MAP_CREATE, &attr, sizeof(attr));
}

static long do_perf(void) {
  struct perf_event_attr attr = {.type = PERF_TYPE_SOFTWARE, .size = sizeof(attr), .config = PERF_COUNT_SW_CPU_CLOCK, .disabled = 1};
  return syscall(SYS_perf_event_open, &attr, -1, 0, -1, 0);
}

static long do_io_uring(void) {
  char parameters[256] = {0};
  return syscall(SYS_io_uring_setup, 1, parameters);
}

static long do_add_key(void) { return syscall(SYS_add_key, "user", "probe", "x", 1, -2 /* this process's keyring */); }
static long do_keyctl(void) { return syscall(SYS_keyctl, 0 /* KEYCTL_GET_KEYRING_ID */, -2, 1); }
static long do_userfaultfd(void) { return syscall(SYS_userfaultfd, O_CLOEXEC); }
static long do_syslog(void) {
  char text[64];
  return syscall(SYS_syslog, 3 /* SYSLOG_ACTION_READ_ALL */, text, sizeof(text));
}
static long do_settimeofday(void) { return syscall(SYS_settimeofday, NULL, NULL); }
static long do_clock_settime(void) { return syscall(SYS_clock_settime, CLOCK_REALTIME, &(struct timespec){0, -1}); }
static long do_reboot(void) { return syscall(SYS_reboot, 0, 0, 0, NULL); }
static long do_swapon(void) { return syscall(SYS_swapon, "/missing", 0); }
static long do_acct(void) { return syscall(SYS_acct, "/missing"); }
static long do_init_module(void) { return syscall(SYS_init_module, NULL, 0, ""); }
static long do_kexec(void) { return syscall(SYS_kexec_load, 0, 0, NULL, 0x80000000UL); }
static long do_fanotify(void) { return syscall(SYS_fanotify_init, 0, O_RDONLY); }
static long do_memfd_secret(void) { return syscall(447 /* newer than musl */, 0); }
static long do_iopl(void) { return syscall(SYS_iopl, 3); }
static long do_modify_ldt(void) {
  char table[64];
  return syscall(SYS_modify_ldt, 0, table, sizeof(table));
}
static long do_kcmp(void) { return syscall(SYS_kcmp, getpid(), getpid(), 0, 0, 0); }

/* `past`: the errno of a kernel that would have done it, where the call is made so that it does nothing. */
static const struct {
  const char *name;
  long (*call)(void);
  int past;
} calls[] = {
    {"bpf", do_bpf, 0},
    {"perf_event_open", do_perf, 0},
    {"io_uring_setup", do_io_uring, 0},
    {"add_key", do_add_key, 0},
    {"keyctl", do_keyctl, 0},
    {"userfaultfd", do_userfaultfd, 0},
    {"syslog", do_syslog, 0},
    {"settimeofday", do_settimeofday, 0},
    {"clock_settime", do_clock_settime, EINVAL},
    {"reboot", do_reboot, EINVAL},
    {"swapon", do_swapon, ENOENT},
    {"acct", do_acct, ENOENT},
    {"init_module", do_init_module, ENOEXEC},
    {"kexec_load", do_kexec, EINVAL},
    {"fanotify_init", do_fanotify, 0},
    {"memfd_secret", do_memfd_secret, 0},
    {"iopl", do_iopl, 0},
    {"modify_ldt", do_modify_ldt, 0},
    {"kcmp", do_kcmp, 0},
};

static _Noreturn void attack_call(char **list) {
  const char *name = argument(list, 0);
  for (size_t i = 0; i < COUNT(calls); i++) {
    if (strcmp(calls[i].name, name) != 0) continue;
    long result = calls[i].call();
    if (calls[i].past != 0) verdict_past(result, calls[i].past, name);
    verdict(result, name);
  }
  usage("there is no such call");
}

/* ---- privileges ---- */

static _Noreturn void attack_setuid(char **list) {
  (void)list;
  if (geteuid() == 0) escaped("is root");
  if (setresuid(0, 0, 0) == 0) escaped("became root");
  refused(errno);
}

static _Noreturn void attack_set_capabilities(char **list) {
  struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
  struct __user_cap_data_struct data[2] = {{0}};
  (void)list;
  if (syscall(SYS_capget, &header, data) < 0) refused(errno);
  if (data[0].effective != 0) escaped("has capabilities 0x%x", data[0].effective);
  refused(EPERM);
}

/* Gives a program every capability that the caller may give away. */
static _Noreturn void attack_give_capabilities(char **list) {
  struct vfs_cap_data data = {.magic_etc = VFS_CAP_REVISION_2 | VFS_CAP_FLAGS_EFFECTIVE,
                              .data = {{.permitted = 1U << CAP_SETUID | 1U << CAP_DAC_OVERRIDE}}};
  verdict(setxattr(argument(list, 0), "security.capability", &data, XATTR_CAPS_SZ_2, 0), "gave capabilities");
}

/* Sets a limit of a process, soft and hard; escaped when it then is as asked for. */
static _Noreturn void attack_limit(char **list) {
  pid_t pid = (pid_t)number(list, 0);
  int resource = (int)number(list, 1);
  struct rlimit wanted = {(rlim_t)number(list, 2), (rlim_t)number(list, 3)}, found = {0};
  if (prlimit(pid, resource, &wanted, NULL) < 0 || prlimit(pid, resource, NULL, &found) < 0) refused(errno);
  if (found.rlim_cur == wanted.rlim_cur && found.rlim_max == wanted.rlim_max) escaped("the limit is set");
  refused(EPERM);
}

/* ---- resources ---- */

/* Keeps that many children at once. */
static _Noreturn void attack_processes(char **list) {
  long count = number(list, 0);
  int hold[2], code = 0;
  if (pipe(hold) < 0) refused(errno);
  for (long i = 0; i < count && code == 0; i++) {
    pid_t child = fork();
    if (child == 0) {
      char byte;
      (void)close(hold[1]);
      _exit(read(hold[0], &byte, 1) < 0);
    }
    if (child < 0) code = errno;
  }
  (void)close(hold[1]);
  while (wait(NULL) > 0) continue;
  if (code != 0) refused(code);
  escaped("%ld processes", count);
}

static _Noreturn void attack_zombies(char **list) {
  long count = number(list, 0);
  for (long i = 0; i < count; i++) {
    pid_t child = fork();
    if (child == 0) _exit(0);
    if (child < 0) refused(errno);
  }
  escaped("%ld zombies", count);
}

/* Children whose parent goes at once, so that somebody else has to reap them. */
static _Noreturn void attack_orphans(char **list) {
  long count = number(list, 0);
  for (long i = 0; i < count; i++) {
    pid_t child = fork();
    if (child == 0) {
      pid_t orphan = fork();
      if (orphan == 0) (void)usleep(1000);
      _exit(0);
    }
    if (child < 0) refused(errno);
    (void)wait_for(child);
  }
  escaped("%ld orphans", count);
}

/* Never ends by itself: every process forks for as long as it lives. */
static _Noreturn void attack_bomb(char **list) {
  (void)list;
  (void)signal(SIGTERM, SIG_IGN);
  for (;;)
    if (fork() < 0) (void)sched_yield();
}

static _Noreturn void attack_memory(char **list) {
  size_t size = (size_t)number(list, 0) << 20;
  char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) refused(errno);
  for (size_t at = 0; at < size; at += 4096) memory[at] = 1;
  escaped("%zu bytes of memory", size);
}

/* Opens that many files in each of that many processes. One that is killed at it has run out of memory. */
static _Noreturn void attack_open_files(char **list) {
  long count = number(list, 0), processes = number(list, 1);
  for (long i = 0; i < processes; i++) {
    int ready[2], code = ENOMEM;
    if (pipe(ready) < 0) refused(errno);
    pid_t child = fork();
    if (child < 0) refused(errno);
    if (child == 0) {
      (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
      code = 0;
      for (long file = 0; file < count && code == 0; file++)
        if (open("/dev/null", O_RDONLY | O_CLOEXEC) < 0) code = errno;
      (void)!write(ready[1], &code, sizeof(code));
      for (;;) (void)pause();
    }
    (void)close(ready[1]);
    (void)!read(ready[0], &code, sizeof(code));
    (void)close(ready[0]);
    if (code != 0) refused(code);
  }
  escaped("%ld open files", count * processes);
}

static _Noreturn void attack_files(char **list) {
  const char *folder = argument(list, 0);
  long count = number(list, 1);
  int directory = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (directory < 0) refused(errno);
  for (long i = 0; i < count; i++) {
    char name[32];
    (void)snprintf(name, sizeof(name), "f%ld", i);
    int fd = openat(directory, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) refused(errno);
    (void)close(fd);
  }
  escaped("%ld files", count);
}

static _Noreturn void attack_fill(char **list) {
  static char block[1 << 20];
  int fd = open(argument(list, 0), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) refused(errno);
  for (long i = 0; i < number(list, 1); i++)
    for (size_t done = 0; done < sizeof(block);) {
      ssize_t count = write(fd, block + done, sizeof(block) - done);
      if (count < 0) refused(errno);
      done += (size_t)count;
    }
  escaped("%ld MiB", number(list, 1));
}

/* ---- pid 1 ---- */

/* Lets init run for one second only, and then keeps it busy: what the kernel sends at that limit is no signal of somebody inside. */
static _Noreturn void attack_exhaust_init(char **list) {
  struct rlimit limit = {1, 1};
  uint64_t deadline = now_ms() + (uint64_t)number(list, 0) * 1000;
  if (prlimit(1, RLIMIT_CPU, &limit, NULL) < 0) refused(errno);
  while (now_ms() < deadline) (void)kill(1, SIGCHLD);
  refused(ETIMEDOUT);
}

static int signal_other(const char *pid, const char *signal) {
  (void)kill(atoi(pid), atoi(signal));
  return 0;
}

/* Sends a signal to every process, pid 1 included, but not to itself. */
static _Noreturn void attack_signal_all(char **list) {
  (void)each_process(signal_other, argument(list, 0));
  refused(EPERM);
}

/* ---- ways to run an attack ---- */

static int dispatch(char **list);

static void write_text(const char *path, const char *text) {
  int fd = open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0 || write(fd, text, strlen(text)) < 0) refused(errno);
  (void)close(fd);
}

/* As root of user, mount, process, network and cgroup namespaces of its own, as far as the sandbox lets have them. */
static _Noreturn void run_nested(char **list) {
  if (unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP) < 0) refused(errno);
  write_text("/proc/self/setgroups", "deny");
  write_text("/proc/self/uid_map", "0 0 1");
  write_text("/proc/self/gid_map", "0 0 1");
  pid_t child = fork();
  if (child == 0) exit(dispatch(list));
  int status = child < 0 ? 2 << 8 : wait_for(child);
  exit(WIFEXITED(status) ? WEXITSTATUS(status) : 2);
}

/* In a chroot with all privileges, which is what a sandbox is without protection: pid 1 stays outside. For controls. */
static _Noreturn void run_jailed(char **list) {
  char path[4096];
  const char *folder = argument(list, 0);
  pid_t child = fork();
  if (child == 0) {
    (void)snprintf(path, sizeof(path), "%s/proc", folder);
    (void)mkdir(path, 0755);
    if (mount("proc", path, "proc", 0, NULL) < 0 || chroot(folder) < 0 || chdir("/") < 0) usage("cannot make the jail");
    exit(dispatch(list + 1));
  }
  int status = child < 0 ? 2 << 8 : wait_for(child);
  exit(WIFEXITED(status) ? WEXITSTATUS(status) : 2);
}

static _Noreturn void run_sleep(char **list) {
  (void)usleep((useconds_t)number(list, 0) * 1000);
  exit(0);
}

static const struct {
  const char *name;
  void (*run)(char **list);
} attacks[] = {
    {"open-write", attack_open_write},   {"read", attack_read},
    {"walk", attack_walk},               {"devices", attack_devices},
    {"mknod", attack_mknod},             {"follow", attack_follow},
    {"chroot", attack_chroot},           {"descriptors", attack_descriptors},
    {"overwrite", attack_overwrite},     {"kill", attack_kill},
    {"pidfd", attack_pidfd},             {"ptrace", attack_ptrace},
    {"vm-write", attack_vm_write},       {"memory-file", attack_memory_file},
    {"pidfd-getfd", attack_pidfd_getfd}, {"join", attack_join},
    {"setns", attack_setns},             {"mount", attack_mount},
    {"umount", attack_umount},           {"cgroup-file", attack_cgroup_file},
    {"unshare", attack_unshare},         {"clone", attack_clone},
    {"clone3", attack_clone3},           {"open-tree", attack_open_tree},
    {"fsopen", attack_fsopen},           {"move-mount", attack_move_mount},
    {"pivot", attack_pivot},             {"socket", attack_socket},
    {"link-down", attack_link_down},     {"tiocsti", attack_tiocsti},
    {"tioclinux", attack_tioclinux},     {"int80", attack_int80},
    {"x32", attack_x32},                 {"handle", attack_handle},
    {"call", attack_call},               {"setuid", attack_setuid},
    {"capabilities", attack_set_capabilities}, {"give-capabilities", attack_give_capabilities},
    {"limit", attack_limit},             {"processes", attack_processes},
    {"zombies", attack_zombies},         {"orphans", attack_orphans},
    {"bomb", attack_bomb},               {"memory", attack_memory},
    {"open-files", attack_open_files},   {"files", attack_files},
    {"fill", attack_fill},               {"exhaust-init", attack_exhaust_init},
    {"signal-all", attack_signal_all},   {"nested", run_nested},
    {"idle", attack_idle},               {"spin", run_spin},
    {"jail", run_jailed},                {"sleep", run_sleep},
};

static int dispatch(char **list) {
  const char *name = argument(list, 0);
  for (size_t i = 0; i < COUNT(attacks); i++)
    if (strcmp(attacks[i].name, name) == 0) attacks[i].run(list + 1);
  usage("there is no such attack");
}

int main(int argc, char **argv) {
  if (argc < 2) usage("which attack?");
  return dispatch(argv + 1);
}

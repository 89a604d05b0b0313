#include "kernel_api.h"

#include "cell_files.h"

#include <errno.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "io.h"
#include "mounts.h"

enum { NOTHING = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, CLOSED = NOTHING | MOUNT_ATTR_NODEV };

static int make_directory(const char *path, struct failure *failure) {
  if (mkdir(path, 0755) < 0 && errno != EEXIST) return fail(failure, "make directory %s", path);
  return 0;
}

static int make_device(const char *path, unsigned minor, unsigned major, struct failure *failure) {
  if (mknod(path, S_IFCHR | 0666, makedev(major, minor)) < 0) return fail(failure, "make device %s", path);
  if (chmod(path, 0666) < 0) return fail(failure, "set mode of %s", path); /* mknod obeys the umask */
  return 0;
}

static int attach_new(const char *path, const char *type, const struct mount_option *options, size_t count, uint64_t attributes,
                      struct failure *failure) {
  AUTO_CLOSE int mount = mount_new(type, options, count, attributes, failure);
  return mount < 0 ? -1 : mount_attach(mount, path, failure);
}

int make_templates(struct failure *failure) {
  static const struct mount_option small[] = {{"size", "64k"}, {"mode", "0755"}};
  static const struct {
    const char *path;
    unsigned major, minor;
  } devices[] = {{"/template/dev/null", 1, 3},   {"/template/dev/zero", 1, 5},    {"/template/dev/full", 1, 7},
                 {"/template/dev/random", 1, 8}, {"/template/dev/urandom", 1, 9}, {"/template/dev/tty", 5, 0}};
  static const struct {
    const char *path, *target;
  } links[] = {{"/template/dev/fd", "/proc/self/fd"},         {"/template/dev/stdin", "/proc/self/fd/0"},
               {"/template/dev/stdout", "/proc/self/fd/1"},   {"/template/dev/stderr", "/proc/self/fd/2"},
               {"/template/dev/ptmx", "pts/ptmx"},            {"/template/dev/core", "/proc/kcore"}};
  static const char *const directories[] = {"/template/dev/pts", "/template/dev/shm", "/template/dev/mqueue"};
  static const char *const system_directories[] = {"/template/sys/devices", "/template/sys/devices/system",
                                                   "/template/sys/devices/system/cpu", "/template/sys/fs", "/template/sys/fs/cgroup",
                                                   "/template/sys/class", "/template/sys/kernel"};
  if (make_directory("/template", failure) < 0 || make_directory("/template/dev", failure) < 0 ||
      make_directory("/template/sys", failure) < 0 || make_directory("/template/empty", failure) < 0)
    return -1;
  if (attach_new("/template/dev", "tmpfs", small, ARRAY_LEN(small), NOTHING, failure) < 0) return -1;
  for (size_t i = 0; i < ARRAY_LEN(devices); i++)
    if (make_device(devices[i].path, devices[i].minor, devices[i].major, failure) < 0) return -1;
  for (size_t i = 0; i < ARRAY_LEN(links); i++)
    if (symlink(links[i].target, links[i].path) < 0) return fail(failure, "make link %s", links[i].path);
  for (size_t i = 0; i < ARRAY_LEN(directories); i++)
    if (make_directory(directories[i], failure) < 0) return -1;
  if (attach_new("/template/empty", "tmpfs", small, ARRAY_LEN(small), CLOSED, failure) < 0) return -1;
  if (attach_new("/template/sys", "tmpfs", small, ARRAY_LEN(small), CLOSED, failure) < 0) return -1;
  for (size_t i = 0; i < ARRAY_LEN(system_directories); i++)
    if (make_directory(system_directories[i], failure) < 0) return -1;
  /* Of /sys only the processors' topology is shown, which C libraries and language runtimes read. */
  AUTO_CLOSE int cpu = mount_clone("/sys/devices/system/cpu", CLOSED | MOUNT_ATTR_RDONLY, failure);
  return cpu < 0 ? -1 : mount_attach(cpu, "/template/sys/devices/system/cpu", failure);
}

static int attach_copy(const char *template, const char *path, uint64_t attributes, struct failure *failure) {
  AUTO_CLOSE int copy = mount_clone(template, attributes, failure);
  return copy < 0 ? -1 : mount_attach(copy, path, failure);
}

/*
 * The network namespace belongs to the host's user namespace, so that nobody inside can configure it. What sandboxed programs expect to do
 * with their capabilities is opened instead: low ports for all, and ping.
 */
static int open_network(struct failure *failure) {
  if (write_file_at(AT_FDCWD, "/t/proc/sys/net/ipv4/ip_unprivileged_port_start", "0") < 0) return fail(failure, "open low ports");
  if (write_file_at(AT_FDCWD, "/t/proc/sys/net/ipv4/ping_group_range", "0 2147483647") < 0) return fail(failure, "open ping");
  return 0;
}

/*
 * Hides and locks what the Open Container Initiative's default configuration does, where this kernel has it, and locks /proc/pressure, where
 * anybody may otherwise have the kernel watch the host at no cost to the watcher.
 */
static int restrict_proc(struct failure *failure) {
  static const char *const masked_directories[] = {"/t/proc/acpi", "/t/proc/asound", "/t/proc/scsi"};
  static const char *const masked_files[] = {"/t/proc/kcore",        "/t/proc/keys",       "/t/proc/latency_stats", "/t/proc/timer_list",
                                             "/t/proc/timer_stats",  "/t/proc/sched_debug", "/t/proc/interrupts",   "/t/proc/kallsyms",
                                             "/t/proc/kmsg",         "/t/proc/modules"};
  static const char *const read_only[] = {"/t/proc/bus", "/t/proc/fs", "/t/proc/irq", "/t/proc/sys", "/t/proc/sysrq-trigger",
                                          "/t/proc/dynamic_debug", "/t/proc/pressure"};
  for (size_t i = 0; i < ARRAY_LEN(masked_directories); i++)
    if (access(masked_directories[i], F_OK) == 0 &&
        attach_copy("/template/empty", masked_directories[i], CLOSED | MOUNT_ATTR_RDONLY, failure) < 0)
      return -1;
  for (size_t i = 0; i < ARRAY_LEN(masked_files); i++)
    if (access(masked_files[i], F_OK) == 0 && attach_copy("/template/dev/null", masked_files[i], NOTHING | MOUNT_ATTR_RDONLY, failure) < 0)
      return -1;
  for (size_t i = 0; i < ARRAY_LEN(read_only); i++)
    if (access(read_only[i], F_OK) == 0 && attach_copy(read_only[i], read_only[i], CLOSED | MOUNT_ATTR_RDONLY, failure) < 0) return -1;
  return 0;
}

static int make_shared_memory(const char *path, struct failure *failure) {
  static const struct mount_option options[] = {{"mode", "1777"}, {"size", "65536k"}};
  return attach_new(path, "tmpfs", options, ARRAY_LEN(options), CLOSED, failure);
}

int renew_shared_memory(struct failure *failure) {
  if (umount2("/dev/shm", MNT_DETACH | UMOUNT_NOFOLLOW) < 0) return fail(failure, "detach /dev/shm");
  return make_shared_memory("/dev/shm", failure);
}

/* The host id of the group that owns terminals inside, `tty`, which is 5 in every distribution. */
static int make_dev(uint32_t uid_base, struct failure *failure) {
  char tty[16];
  (void)format(tty, sizeof(tty), "%u", uid_base + 5);
  const struct mount_option terminals[] = {{"ptmxmode", "0666"}, {"mode", "0620"}, {"gid", tty}};
  if (attach_copy("/template/dev", "/t/dev", NOTHING | MOUNT_ATTR_RDONLY, failure) < 0) return -1;
  if (attach_new("/t/dev/pts", "devpts", terminals, ARRAY_LEN(terminals), NOTHING, failure) < 0) return -1;
  if (make_shared_memory("/t/dev/shm", failure) < 0) return -1;
  return attach_new("/t/dev/mqueue", "mqueue", NULL, 0, CLOSED, failure);
}

int make_empty_root(struct failure *failure) {
  static const struct mount_option small[] = {{"size", "64k"}, {"mode", "0755"}};
  return mount_new("tmpfs", small, ARRAY_LEN(small), CLOSED, failure);
}

int make_skeleton(uint32_t uid_base, struct failure *failure) {
  if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) return fail(failure, "make mounts private");
  AUTO_CLOSE int root = make_empty_root(failure);
  if (root < 0 || mount_attach(root, "/t", failure) < 0) return -1;
  if (make_directory("/t/proc", failure) < 0 || make_directory("/t/dev", failure) < 0 || make_directory("/t/sys", failure) < 0)
    return -1;
  if (attach_new("/t/proc", "proc", NULL, 0, CLOSED, failure) < 0) return -1;
  if (open_network(failure) < 0 || restrict_proc(failure) < 0) return -1;
  if (make_dev(uid_base, failure) < 0) return -1;
  if (attach_copy("/template/sys", "/t/sys", CLOSED | MOUNT_ATTR_RDONLY, failure) < 0) return -1;
  if (chdir("/t") < 0 || sys_pivot_root(".", ".") < 0) return fail(failure, "pivot to the skeleton root");
  if (umount2(".", MNT_DETACH) < 0 || chdir("/") < 0) return fail(failure, "detach the host's files");
  return 0;
}

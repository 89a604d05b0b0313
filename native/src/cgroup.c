#include "kernel_api.h"

#include "cgroup.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "io.h"

static int directory_count(const struct cgroups *cgroups) { return cgroups->version == 2 ? 1 : CG_CONTROLLERS; }

int cgroups_open(struct cgroups *cgroups, int version, char *const *paths, struct failure *failure) {
  cgroups->version = version;
  for (int i = 0; i < directory_count(cgroups); i++) {
    cgroups->dirs[i] = open(paths[i], O_DIRECTORY | O_RDONLY | O_CLOEXEC);
    if (cgroups->dirs[i] < 0) return fail(failure, "open cgroup %s", paths[i]);
  }
  return 0;
}

int cgroup_make(const struct cgroups *cgroups, uint32_t index, struct failure *failure) {
  char name[32];
  (void)format(name, sizeof(name), "c%u", index);
  for (int i = 0; i < directory_count(cgroups); i++)
    if (mkdirat(cgroups->dirs[i], name, 0755) < 0) return fail(failure, "make cgroup %s", name);
  return 0;
}

int cgroup_join(const struct cgroups *cgroups, uint32_t index, struct failure *failure) {
  char path[64];
  /* Version 1: a thread that moves itself ("0" to `tasks`) takes no global lock; moving a process waits for RCU for 10 ms or more. */
  (void)format(path, sizeof(path), "c%u/%s", index, cgroups->version == 2 ? "cgroup.procs" : "tasks");
  for (int i = 0; i < directory_count(cgroups); i++)
    if (write_file_at(cgroups->dirs[i], path, "0") < 0) return fail(failure, "join cgroup %s", path);
  return 0;
}

/* Sets one limit file of the cell. */
static int set(int dirfd, uint32_t index, const char *file, const char *value, struct failure *failure) {
  char path[96];
  (void)format(path, sizeof(path), "c%u/%s", index, file);
  if (write_file_at(dirfd, path, value) < 0) return fail(failure, "set cgroup %s to %s", path, value);
  return 0;
}

/* As `set`, but a kernel without that file (one without swap accounting) is fine: there is then nothing to limit. */
static int set_if_present(int dirfd, uint32_t index, const char *file, const char *value, struct failure *failure) {
  char path[96];
  (void)format(path, sizeof(path), "c%u/%s", index, file);
  if (write_file_at(dirfd, path, value) < 0 && errno != ENOENT) return fail(failure, "set cgroup %s to %s", path, value);
  return 0;
}

static int limit_memory_v1(const struct cgroups *cgroups, uint32_t index, const char *bytes, struct failure *failure) {
  int dir = cgroups->dirs[CG_MEMORY];
  struct failure ignored = {0};
  /* Memory may never exceed memory plus swap, so which of the two goes first depends on the direction of the change. */
  if (set(dir, index, "memory.limit_in_bytes", bytes, &ignored) < 0) {
    if (set_if_present(dir, index, "memory.memsw.limit_in_bytes", bytes, failure) < 0) return -1;
    return set(dir, index, "memory.limit_in_bytes", bytes, failure);
  }
  if (set_if_present(dir, index, "memory.memsw.limit_in_bytes", bytes, failure) < 0) return -1;
  return set_if_present(dir, index, "memory.swappiness", "0", failure);
}

int cgroup_limit(const struct cgroups *cgroups, uint32_t index, const struct cell_limits *limits, struct failure *failure) {
  char memory[32], cpu[48], pids[16];
  (void)format(memory, sizeof(memory), "%llu", (unsigned long long)limits->memory_bytes);
  (void)format(pids, sizeof(pids), "%u", limits->pids);
  if (cgroups->version == 2) {
    int dir = cgroups->dirs[0];
    (void)format(cpu, sizeof(cpu), "%u 100000", limits->cpu_quota_us);
    if (set(dir, index, "memory.max", memory, failure) < 0) return -1;
    if (set_if_present(dir, index, "memory.swap.max", "0", failure) < 0) return -1;
    if (set(dir, index, "cpu.max", cpu, failure) < 0) return -1;
    return set(dir, index, "pids.max", pids, failure);
  }
  (void)format(cpu, sizeof(cpu), "%u", limits->cpu_quota_us);
  if (limit_memory_v1(cgroups, index, memory, failure) < 0) return -1;
  if (set(cgroups->dirs[CG_CPU], index, "cpu.cfs_quota_us", cpu, failure) < 0) return -1;
  return set(cgroups->dirs[CG_PIDS], index, "pids.max", pids, failure);
}

int cgroup_freeze(const struct cgroups *cgroups, uint32_t index, bool frozen, struct failure *failure) {
  bool v2 = cgroups->version == 2;
  int dir = cgroups->dirs[v2 ? 0 : CG_FREEZER];
  const char *file = v2 ? "cgroup.freeze" : "freezer.state";
  if (set(dir, index, file, v2 ? (frozen ? "1" : "0") : (frozen ? "FROZEN" : "THAWED"), failure) < 0) return -1;
  if (!frozen) return 0;
  char path[64], text[256];
  (void)format(path, sizeof(path), "c%u/%s", index, v2 ? "cgroup.events" : file);
  /* Polling with short sleeps: waiting for the kernel's own notice of version 2 takes 15 ms, this takes 0.2. */
  for (uint64_t deadline = now_ms() + 5000; now_ms() < deadline;) {
    if (read_file_at(dir, path, text, sizeof(text)) < 0) return fail(failure, "read cgroup %s", path);
    if (strstr(text, v2 ? "frozen 1" : "FROZEN") != NULL) return 0;
    /* Version 1 may need to be told again when a process forked while it froze. */
    if (!v2) (void)set(dir, index, file, "FROZEN", &(struct failure){0});
    (void)nanosleep(&(struct timespec){.tv_nsec = 50000}, NULL);
  }
  errno = ETIMEDOUT;
  return fail(failure, "freeze cgroup c%u", index);
}

/* Kills every process that a `cgroup.procs` names, if it is still in there when its pidfd is open. */
static int kill_listed(int dirfd, const char *path) {
  char text[65536];
  int found = 0;
  if (read_file_at(dirfd, path, text, sizeof(text)) <= 0) return 0;
  for (char *line = text; *line != '\0';) {
    char *end = NULL;
    long pid = strtol(line, &end, 10);
    if (end == line) break;
    line = *end == '\n' ? end + 1 : end;
    if (pid <= 1) continue; /* 0: a process of another pid namespace, which is none of ours */
    AUTO_CLOSE int pidfd = sys_pidfd_open((pid_t)pid);
    if (pidfd < 0) continue;
    char again[65536], wanted[32];
    (void)format(wanted, sizeof(wanted), "%ld\n", pid);
    if (read_file_at(dirfd, path, again, sizeof(again)) <= 0) continue;
    const char *match = strstr(again, wanted);
    while (match != NULL && match != again && match[-1] != '\n') match = strstr(match + 1, wanted);
    if (match == NULL) continue;
    (void)sys_pidfd_send_signal(pidfd, SIGKILL);
    found++;
  }
  return found;
}

int cgroup_kill(const struct cgroups *cgroups, uint32_t index, struct failure *failure) {
  char path[64];
  if (cgroups->version == 2) {
    (void)format(path, sizeof(path), "c%u/cgroup.kill", index);
    if (write_file_at(cgroups->dirs[0], path, "1") < 0 && errno != ENOENT) return fail(failure, "kill cgroup c%u", index);
  }
  (void)format(path, sizeof(path), "c%u/cgroup.procs", index);
  int found = 0;
  for (int i = 0; i < directory_count(cgroups); i++) found += kill_listed(cgroups->dirs[i], path);
  return found;
}

int cgroup_remove(const struct cgroups *cgroups, uint32_t index, struct failure *failure) {
  char name[32];
  (void)format(name, sizeof(name), "c%u", index);
  for (int i = 0; i < directory_count(cgroups); i++)
    if (unlinkat(cgroups->dirs[i], name, AT_REMOVEDIR) < 0 && errno != ENOENT) return fail(failure, "remove cgroup %s", name);
  return 0;
}

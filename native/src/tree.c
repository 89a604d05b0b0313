#include "tree.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "io.h"

enum { MAX_PROCESSES = 65536 };

struct process {
  pid_t pid, parent;
  char state;
  bool ours;
};

static struct process processes[MAX_PROCESSES];

/* Reads pid, parent and state of one process. */
static bool read_process(int proc, const char *name, struct process *process) {
  char path[64], text[512];
  if (format(path, sizeof(path), "%s/stat", name) < 0 || read_file_at(proc, path, text, sizeof(text)) <= 0) return false;
  const char *end = strrchr(text, ')'); /* the name before it may hold anything, parentheses included */
  int parent;
  if (end == NULL || sscanf(end + 1, " %c %d", &process->state, &parent) != 2) return false;
  process->pid = (pid_t)atoi(name);
  process->parent = parent;
  process->ours = false;
  return true;
}

static size_t list_processes(int proc) {
  size_t count = 0;
  int copy = openat(proc, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *directory = copy < 0 ? NULL : fdopendir(copy);
  if (directory == NULL) {
    close_fd(&copy);
    return 0;
  }
  for (const struct dirent *entry; count < MAX_PROCESSES && (entry = readdir(directory)) != NULL;)
    if (entry->d_name[0] >= '1' && entry->d_name[0] <= '9' && read_process(proc, entry->d_name, &processes[count])) count++;
  (void)closedir(directory);
  return count;
}

static bool is_ours(pid_t pid, size_t count, pid_t self) {
  if (pid == self) return true;
  for (size_t i = 0; i < count; i++)
    if (processes[i].pid == pid) return processes[i].ours;
  return false;
}

/* Marks all descendants of `self`; returns how many there are. */
static int mark(size_t count, pid_t self) {
  int marked = 0;
  for (bool changed = true; changed;) {
    changed = false;
    for (size_t i = 0; i < count; i++) {
      if (processes[i].ours || !is_ours(processes[i].parent, count, self)) continue;
      processes[i].ours = changed = true;
      marked++;
    }
  }
  return marked;
}

/* Sends `signal` to all descendants; returns how many of them were still running. */
static int signal_descendants(int proc, int signal, int *alive) {
  size_t count = list_processes(proc);
  int running = 0;
  *alive = 0;
  if (mark(count, getpid()) == 0) return 0;
  for (size_t i = 0; i < count; i++) {
    if (!processes[i].ours || processes[i].state == 'Z' || processes[i].state == 'X') continue;
    (*alive)++;
    if (processes[i].state == 'T' && signal == SIGSTOP) continue;
    running++;
    (void)kill(processes[i].pid, signal);
  }
  return running;
}

int kill_descendants(int proc, int timeout_ms) {
  uint64_t deadline = now_ms() + (uint64_t)timeout_ms;
  int alive = 0;
  /* A pass that finds only stopped processes proves that nobody is left who could fork. */
  while (signal_descendants(proc, SIGSTOP, &alive) > 0 && now_ms() < deadline) (void)poll(NULL, 0, 1);
  do {
    (void)signal_descendants(proc, SIGKILL, &alive);
    if (alive == 0) return 0;
    (void)poll(NULL, 0, 1);
  } while (now_ms() < deadline);
  return alive;
}

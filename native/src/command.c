#include "kernel_api.h"

#include "command.h"

#include <dirent.h>
#include <errno.h>
#include <grp.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>

#include "io.h"

enum { CANNOT_SET_UP = 125, CANNOT_EXECUTE = 126, NOT_FOUND = 127 };

static const char default_path[] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/* For shells that others start: squashd says the same in each request, as it is now. */
#define OWN_SCRIPT "squash-secrets.sh"

/* Sources the login scripts, then becomes the command: $1 is a shell text, or $@ the program and its arguments. */
static char source_and_eval[] =
    "for squash_file in /etc/profile.d/*.sh; do [ -r \"$squash_file\" ] && [ \"${squash_file##*/}\" != " OWN_SCRIPT " ] && . \"$squash_file\"; done; unset squash_file; eval \"$1\"";
static char source_and_exec[] =
    "for squash_file in /etc/profile.d/*.sh; do [ -r \"$squash_file\" ] && [ \"${squash_file##*/}\" != " OWN_SCRIPT " ] && . \"$squash_file\"; done; unset squash_file; exec \"$@\"";

static _Noreturn void die(int code, const char *what, const char *target) {
  char text[1024];
  int length = snprintf(text, sizeof(text), "squash: cannot %s \"%.512s\": %s\n", what, target, strerror(errno));
  if (length > 0) (void)!write(2, text, (size_t)length);
  _exit(code);
}

static bool has_login_scripts(void) {
  DIR *directory = opendir("/etc/profile.d");
  bool found = false;
  if (directory == NULL) return false;
  for (const struct dirent *entry; !found && (entry = readdir(directory)) != NULL;) {
    size_t size = strlen(entry->d_name);
    found = size > 3 && entry->d_name[0] != '.' && strcmp(entry->d_name + size - 3, ".sh") == 0 && strcmp(entry->d_name, OWN_SCRIPT) != 0;
  }
  (void)closedir(directory);
  return found;
}

static bool has_variable(const struct exec_request *request, const char *name) {
  size_t size = strlen(name);
  for (uint32_t i = 0; i < request->envc; i++)
    if (strncmp(request->env[i], name, size) == 0 && request->env[i][size] == '=') return true;
  return false;
}

static void add_variable(struct exec_request *request, const char *name, const char *value, char *buffer, size_t size) {
  if (has_variable(request, name) || format(buffer, size, "%s=%s", name, value) < 0) return;
  request->env[request->envc++] = buffer;
  request->env[request->envc] = NULL;
}

static void complete_environment(struct exec_request *request, const struct account *account) {
  static char path[128], home[1100], user[128], logname[128], term[32], lang[32];
  add_variable(request, "PATH", default_path, path, sizeof(path));
  add_variable(request, "HOME", account->home, home, sizeof(home));
  add_variable(request, "USER", account->name, user, sizeof(user));
  add_variable(request, "LOGNAME", account->name, logname, sizeof(logname));
  add_variable(request, "TERM", "xterm", term, sizeof(term));
  add_variable(request, "LANG", "C.UTF-8", lang, sizeof(lang));
}

/* Puts a shell in front where the command is a shell text, or where login scripts have to be read first. */
static void wrap_in_shell(struct exec_request *request) {
  static char shell[] = "/bin/sh", option[] = "-c", name[] = "sh";
  bool is_text = (request->flags & EXEC_SHELL) != 0, scripts = has_login_scripts();
  if (!is_text && !scripts) return;
  size_t front = scripts ? 4 : 2;
  memmove(request->argv + front, request->argv, (request->argc + 1) * sizeof(request->argv[0]));
  request->argv[0] = shell;
  request->argv[1] = option;
  if (scripts) {
    request->argv[2] = is_text ? source_and_eval : source_and_exec;
    request->argv[3] = name;
  }
  request->argc += (uint32_t)front;
}

static const char *search_path(const struct exec_request *request) {
  for (uint32_t i = 0; i < request->envc; i++)
    if (strncmp(request->env[i], "PATH=", 5) == 0) return request->env[i] + 5;
  return default_path;
}

static _Noreturn void execute(struct exec_request *request) {
  const char *program = request->argv[0];
  int reason = ENOENT;
  if (strchr(program, '/') != NULL) {
    (void)execve(program, request->argv, request->env);
    reason = errno;
  } else {
    const char *next = search_path(request);
    while (next != NULL && program[0] != '\0') {
      char path[PATH_MAX];
      const char *end = strchrnul(next, ':');
      if (format(path, sizeof(path), "%.*s/%s", (int)(end - next), next, program) == 0) {
        (void)execve(path, request->argv, request->env);
        /* As shells do: a file that may not be run is remembered, but the search goes on. */
        if (errno != ENOENT && errno != ENOTDIR) reason = errno;
      }
      next = *end == ':' ? end + 1 : NULL;
    }
  }
  errno = reason;
  die(reason == ENOENT || reason == ENOTDIR ? NOT_FOUND : CANNOT_EXECUTE, "run", program);
}

/*
 * Where memory runs out a command is to be killed, not init, which counts as much where files or the kernel use that memory; and on the host
 * anything in a sandbox rather than anything else. Only what is dumpable may say so of itself; nothing of init's is in reach any more.
 */
static void prefer_as_victim(void) {
  (void)prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
  (void)write_file_at(AT_FDCWD, "/proc/self/oom_score_adj", "500");
  (void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
}

static _Noreturn void become(struct exec_request *request, const int ends[3]) {
  static struct account account;
  sigset_t none;
  (void)setsid();
  for (int fd = 0; fd < 3; fd++)
    if (dup2(ends[fd], fd) < 0) _exit(CANNOT_SET_UP);
  if (sys_close_range(3, ~0U, 0) < 0) die(CANNOT_SET_UP, "close", "inherited descriptors");
  (void)signal(SIGPIPE, SIG_DFL);
  (void)sigemptyset(&none);
  (void)sigprocmask(SIG_SETMASK, &none, NULL);
  prefer_as_victim();
  errno = ENOENT;
  if (!account_find(request->user, &account)) die(CANNOT_SET_UP, "find user", request->user);
  if (setgroups(account.group_count, account.groups) < 0) die(CANNOT_SET_UP, "take the groups of", account.name);
  if (setresgid(account.gid, account.gid, account.gid) < 0) die(CANNOT_SET_UP, "take the group of", account.name);
  if (setresuid(account.uid, account.uid, account.uid) < 0) die(CANNOT_SET_UP, "become user", account.name);
  if (chdir(request->workdir) < 0) die(CANNOT_SET_UP, "enter directory", request->workdir);
  wrap_in_shell(request);
  complete_environment(request, &account);
  execute(request);
}

const char *command_start(struct exec_request *request, struct command *command, int pipes[3]) {
  int ends[3] = {-1, -1, -1};
  for (int i = 0; i < 3; i++) {
    int pair[2];
    if (pipe2(pair, O_CLOEXEC) < 0) return "make pipes for the command";
    pipes[i] = pair[i == 0 ? 1 : 0];
    ends[i] = pair[i == 0 ? 0 : 1];
    if (fcntl(pipes[i], F_SETFL, O_NONBLOCK) < 0) return "prepare pipes for the command";
  }
  command->pid = fork();
  if (command->pid < 0) return "start the command, as the sandbox has no free process or memory left";
  if (command->pid == 0) become(request, ends);
  for (int i = 0; i < 3; i++) close_fd(&ends[i]);
  return NULL;
}

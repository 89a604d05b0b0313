#include "exec_request.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "io.h"

enum { STRING_LIMIT = 131072 };

bool exec_request_decode(struct exec_request *request, struct reader *reader) {
  request->flags = read_u32(reader);
  request->timeout_ms = read_u32(reader);
  request->stdout_limit = read_u32(reader);
  request->stderr_limit = read_u32(reader);
  request->user = read_string(reader, 63);
  request->workdir = read_string(reader, 4095);
  request->argc = read_u32(reader);
  if (reader->failed || request->argc == 0 || request->argc > EXEC_MAX_ARGS) return false;
  for (uint32_t i = 0; i < request->argc; i++) request->argv[i] = read_string(reader, STRING_LIMIT);
  request->argv[request->argc] = NULL;
  request->envc = read_u32(reader);
  if (reader->failed || request->envc > EXEC_MAX_ENV) return false;
  for (uint32_t i = 0; i < request->envc; i++) request->env[i] = read_string(reader, STRING_LIMIT);
  request->env[request->envc] = NULL;
  return reader_finished(reader);
}

/* The next field of a line whose fields are separated by colons, or NULL. */
static char *next_field(char **line) { return *line == NULL ? NULL : strsep(line, ":"); }

static bool to_id(const char *text, uint32_t *id) {
  char *end = NULL;
  if (text == NULL || text[0] < '0' || text[0] > '9') return false;
  errno = 0;
  unsigned long value = strtoul(text, &end, 10);
  if (errno != 0 || *end != '\0' || value >= 65536) return false;
  *id = (uint32_t)value;
  return true;
}

bool passwd_line_decode(char *line, struct account *account) {
  const char *name = next_field(&line);
  (void)next_field(&line);
  const char *uid = next_field(&line), *gid = next_field(&line);
  (void)next_field(&line);
  const char *home = next_field(&line);
  if (name == NULL || name[0] == '\0' || home == NULL || !to_id(uid, &account->uid) || !to_id(gid, &account->gid)) return false;
  if (format(account->name, sizeof(account->name), "%s", name) < 0) return false;
  return format(account->home, sizeof(account->home), "%s", home[0] == '/' ? home : "/") == 0;
}

/* Calls `each` with every line of a file inside the sandbox, whose size is bounded, until it says true. */
static bool each_line(const char *path, bool (*each)(char *line, void *context), void *context) {
  static char text[256 * 1024];
  if (read_file_at(AT_FDCWD, path, text, sizeof(text)) < 0) return false;
  char *rest = text;
  for (char *line; (line = strsep(&rest, "\n")) != NULL;)
    if (each(line, context)) return true;
  return false;
}

struct search {
  const char *user;
  bool by_number;
  uint32_t number;
  struct account *account;
};

static bool is_wanted_user(char *line, void *context) {
  const struct search *search = context;
  struct account found = {0};
  if (!passwd_line_decode(line, &found)) return false;
  if (search->by_number ? found.uid != search->number : strcmp(found.name, search->user) != 0) return false;
  *search->account = found;
  return true;
}

/* Adds the group of a line to the account when its user is a member. */
static bool collect_group(char *line, void *context) {
  struct account *account = context;
  const char *name = next_field(&line);
  (void)next_field(&line);
  uint32_t gid;
  if (name == NULL || !to_id(next_field(&line), &gid) || line == NULL) return false;
  for (char *member; (member = strsep(&line, ",")) != NULL;)
    if (strcmp(member, account->name) == 0 && account->group_count < EXEC_MAX_GROUPS) account->groups[account->group_count++] = gid;
  return false;
}

bool account_find(const char *user, struct account *account) {
  struct search search = {.user = user[0] == '\0' ? "root" : user, .account = account};
  search.by_number = to_id(search.user, &search.number);
  *account = (struct account){0};
  if (!each_line("/etc/passwd", is_wanted_user, &search)) {
    if (!search.by_number && strcmp(search.user, "root") != 0) return false;
    *account = (struct account){.uid = search.number, .gid = search.number};
    (void)format(account->name, sizeof(account->name), "%s", search.user);
    (void)format(account->home, sizeof(account->home), "%s", account->uid == 0 ? "/root" : "/");
  }
  account->groups[account->group_count++] = account->gid;
  (void)each_line("/etc/group", collect_group, account);
  return true;
}

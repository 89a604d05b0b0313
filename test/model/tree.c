/*
 * Does to files below a directory what it reads from standard input, one operation a line, fields separated by tabs, and prints an errno (0: done)
 * for each; then, after a line "tree", every file below the directory as a line of JSON. Nothing follows a symbolic link in a path's last part.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

enum { block_size = 4096, fields_max = 5 };

static int result(int status) { return status < 0 ? errno : 0; }

static int open_for(const char *path, int flags, mode_t mode) {
  return open(path, O_WRONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | flags, mode);
}

static int write_at(const char *path, long offset, long length, long seed) {
  int file = open_for(path, 0, 0);
  if (file < 0) return errno;
  static unsigned char bytes[1 << 17];
  if (length > (long)sizeof bytes) length = sizeof bytes;
  for (long at = 0; at < length; at++) bytes[at] = (unsigned char)(1 + (seed + at * 7) % 255);
  int error = result((int)pwrite(file, bytes, (size_t)length, offset));
  close(file);
  return error;
}

static int truncate_to(const char *path, long size) {
  int file = open_for(path, 0, 0);
  if (file < 0) return errno;
  int error = result(ftruncate(file, size));
  close(file);
  return error;
}

static int create(const char *path, mode_t mode) {
  int file = open_for(path, O_CREAT | O_EXCL, mode);
  if (file < 0) return errno;
  close(file);
  return 0;
}

static int remove_tree(const char *path) {
  struct stat found;
  if (lstat(path, &found) < 0) return errno;
  if (!S_ISDIR(found.st_mode)) return result(unlink(path));
  DIR *directory = opendir(path);
  if (directory == NULL) return errno;
  int error = 0;
  struct dirent *entry;
  while (error == 0 && (entry = readdir(directory)) != NULL) {
    if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
    char below[4096];
    snprintf(below, sizeof below, "%s/%s", path, entry->d_name);
    error = remove_tree(below);
  }
  closedir(directory);
  return error != 0 ? error : result(rmdir(path));
}

static int touch(const char *path, long seconds, long nanoseconds) {
  struct timespec times[2] = {{.tv_sec = seconds}, {.tv_sec = seconds, .tv_nsec = nanoseconds}};
  return result(utimensat(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW));
}

static int operate(char *field[fields_max]) {
  const char *what = field[0], *path = field[1], *third = field[2], *fourth = field[3];
  long a = strtol(third, NULL, 10), b = strtol(fourth, NULL, 10), c = strtol(field[4], NULL, 10);
  if (strcmp(what, "create") == 0) return create(path, (mode_t)a);
  if (strcmp(what, "write") == 0) return write_at(path, a, b, c);
  if (strcmp(what, "truncate") == 0) return truncate_to(path, a);
  if (strcmp(what, "mkdir") == 0) return result(mkdir(path, (mode_t)a));
  if (strcmp(what, "rmdir") == 0) return result(rmdir(path));
  if (strcmp(what, "unlink") == 0) return result(unlink(path));
  if (strcmp(what, "remove") == 0) return remove_tree(path);
  if (strcmp(what, "rename") == 0) return result(rename(path, third));
  if (strcmp(what, "link") == 0) return result(link(path, third));
  if (strcmp(what, "symlink") == 0) return result(symlink(third, path));
  if (strcmp(what, "pipe") == 0) return result(mknod(path, S_IFIFO | (mode_t)a, 0));
  if (strcmp(what, "socket") == 0) return result(mknod(path, S_IFSOCK | (mode_t)a, 0));
  if (strcmp(what, "chmod") == 0) return result(chmod(path, (mode_t)a));
  if (strcmp(what, "chown") == 0) return result(lchown(path, (uid_t)a, (gid_t)b));
  if (strcmp(what, "touch") == 0) return touch(path, a, b);
  if (strcmp(what, "attribute") == 0) return result(lsetxattr(path, third, fourth, strlen(fourth), 0));
  if (strcmp(what, "unattribute") == 0) return result(lremovexattr(path, third));
  fprintf(stderr, "cannot do \"%s\"\n", what);
  exit(2);
}

/* FNV-1a over blocks that are not all zeroes, each after its number. */
static uint32_t hash_of(const char *path, long long size, int *error) {
  uint32_t hash = 2166136261u;
  int file = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
  if (file < 0) {
    *error = errno;
    return 0;
  }
  static unsigned char block[block_size];
  static const unsigned char zeroes[block_size];
  for (long long at = 0; at < size; at += block_size) {
    memset(block, 0, sizeof block);
    if (pread(file, block, sizeof block, at) < 0) {
      *error = errno;
      break;
    }
    if (memcmp(block, zeroes, sizeof block) == 0) continue;
    uint32_t number = (uint32_t)(at / block_size);
    for (int byte = 0; byte < 4; byte++) hash = (hash ^ ((number >> (8 * byte)) & 255)) * 16777619u;
    for (int byte = 0; byte < block_size; byte++) hash = (hash ^ block[byte]) * 16777619u;
  }
  close(file);
  return hash;
}

/* Bytes that are not in holes. */
static long long data_in(const char *path, long long size) {
  int file = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
  if (file < 0) return -1;
  long long sum = 0;
  for (off_t at = 0; at < size;) {
    off_t from = lseek(file, at, SEEK_DATA);
    if (from < 0) break;
    off_t to = lseek(file, from, SEEK_HOLE);
    if (to < 0) to = size;
    sum += to - from;
    at = to;
  }
  close(file);
  return sum;
}

static void print_attributes(const char *path) {
  char names[8192], value[8192];
  ssize_t length = llistxattr(path, names, sizeof names);
  const char *between = "";
  for (ssize_t at = 0; at < length; at += (ssize_t)strlen(names + at) + 1) {
    ssize_t size = lgetxattr(path, names + at, value, sizeof value - 1);
    printf("%s[\"%s\",\"%.*s\"]", between, names + at, size < 0 ? 0 : (int)size, value);
    between = ",";
  }
}

static void print_tree(const char *path) {
  struct stat found;
  if (lstat(path, &found) < 0) {
    printf("{\"path\":\"%s\",\"error\":%d}\n", path, errno);
    return;
  }
  char target[4096];
  ssize_t length = S_ISLNK(found.st_mode) ? readlink(path, target, sizeof target) : 0;
  int error = 0;
  uint32_t hash = S_ISREG(found.st_mode) ? hash_of(path, found.st_size, &error) : 0;
  long long data = S_ISREG(found.st_mode) ? data_in(path, found.st_size) : 0;
  printf("{\"path\":\"%s\",\"mode\":%u,\"uid\":%u,\"gid\":%u,\"mtime\":\"%lld.%09ld\",\"links\":%lu,", path,
         found.st_mode, found.st_uid, found.st_gid, (long long)found.st_mtim.tv_sec, found.st_mtim.tv_nsec,
         (unsigned long)found.st_nlink);
  printf("\"size\":%lld,\"data\":%lld,\"hash\":%u,\"error\":%d,\"target\":\"%.*s\",\"attributes\":[",
         (long long)(S_ISDIR(found.st_mode) ? 0 : found.st_size), data, hash, error, (int)(length < 0 ? 0 : length), target);
  print_attributes(path);
  printf("]}\n");
  if (!S_ISDIR(found.st_mode)) return;
  struct dirent **entries;
  int count = scandir(path, &entries, NULL, alphasort);
  for (int at = 0; at < count; at++) {
    const char *name = entries[at]->d_name;
    if (strcmp(name, ".") != 0 && strcmp(name, "..") != 0) {
      char below[4096];
      snprintf(below, sizeof below, "%s/%s", path, name);
      print_tree(below);
    }
    free(entries[at]);
  }
  free(entries);
}

int main(int count, char **arguments) {
  if (count != 2 || chdir(arguments[1]) < 0) return 2;
  umask(0);
  char line[16384];
  while (fgets(line, sizeof line, stdin) != NULL) {
    line[strcspn(line, "\n")] = '\0';
    char *field[fields_max] = {"", "", "", "", ""}, *rest = line;
    for (int at = 0; at < fields_max && rest != NULL; at++) field[at] = strsep(&rest, "\t");
    printf("%d\n", operate(field));
  }
  printf("tree\n");
  print_tree(".");
  return 0;
}

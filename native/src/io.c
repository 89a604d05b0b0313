#include "kernel_api.h"

#include "io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

void close_fd(const int *fd) {
  int saved = errno;
  if (*fd >= 0) (void)close(*fd);
  errno = saved;
}

int read_full(int fd, void *buffer, size_t size) {
  for (size_t done = 0; done < size;) {
    ssize_t count = read(fd, (char *)buffer + done, size - done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return -1;
    if (count == 0) {
      errno = EPIPE;
      return -1;
    }
    done += (size_t)count;
  }
  return 0;
}

int write_full(int fd, const void *buffer, size_t size) {
  for (size_t done = 0; done < size;) {
    const char *rest = (const char *)buffer + done;
    ssize_t count = send(fd, rest, size - done, MSG_NOSIGNAL);
    if (count < 0 && errno == ENOTSOCK) count = write(fd, rest, size - done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return -1;
    done += (size_t)count;
  }
  return 0;
}

int write_file_at(int dirfd, const char *path, const char *text) {
  AUTO_CLOSE int fd = openat(dirfd, path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0) return -1;
  size_t size = strlen(text);
  ssize_t count = write(fd, text, size);
  if (count < 0) return -1;
  if ((size_t)count != size) {
    errno = EIO;
    return -1;
  }
  return 0;
}

ssize_t read_file_at(int dirfd, const char *path, char *buffer, size_t size) {
  AUTO_CLOSE int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (fd < 0) return -1;
  size_t done = 0;
  while (done < size - 1) {
    ssize_t count = read(fd, buffer + done, size - 1 - done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return -1;
    if (count == 0) break;
    done += (size_t)count;
  }
  buffer[done] = '\0';
  return (ssize_t)done;
}

uint64_t now_ms(void) {
  struct timespec time;
  (void)clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * 1000 + (uint64_t)time.tv_nsec / 1000000;
}

int format(char *buffer, size_t size, const char *pattern, ...) {
  va_list arguments;
  va_start(arguments, pattern);
  int count = vsnprintf(buffer, size, pattern, arguments);
  va_end(arguments);
  if (count < 0 || (size_t)count >= size) {
    errno = ENAMETOOLONG;
    return -1;
  }
  return 0;
}

static int by_number(const void *left, const void *right) { return *(const int *)left - *(const int *)right; }

int close_all_but(int *kept, size_t count) {
  qsort(kept, count, sizeof(*kept), by_number);
  unsigned next = 0;
  for (size_t i = 0; i < count; i++) {
    if ((unsigned)kept[i] > next && sys_close_range(next, (unsigned)kept[i] - 1, 0) < 0) return -1;
    next = (unsigned)kept[i] + 1;
  }
  return sys_close_range(next, ~0U, 0);
}

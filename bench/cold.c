/*
 * "cold read FILE COUNT": microseconds for COUNT reads of 4 KiB at random places, the same ones each time. "cold drop FILE": writes the file out and
 * makes the kernel forget what it holds of it, and of nothing else. "cold mount IMAGE DIRECTORY": an erofs image without a loop device.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <time.h>
#include <unistd.h>

enum { block = 4096 };

static int fail(const char *what) {
  fprintf(stderr, "cannot %s: %s\n", what, strerror(errno));
  return 1;
}

static int read_randomly(const char *path, long count) {
  char bytes[block];
  struct timespec start, end;
  uint64_t state = 88172645463325252u;
  int file = open(path, O_RDONLY);
  if (file < 0) return fail("open the file");
  off_t blocks = lseek(file, 0, SEEK_END) / block;
  clock_gettime(CLOCK_MONOTONIC, &start);
  for (long i = 0; i < count; i++) {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    if (pread(file, bytes, block, (off_t)(state % (uint64_t)blocks) * block) != block) return fail("read");
  }
  clock_gettime(CLOCK_MONOTONIC, &end);
  printf("%lld\n", (long long)(end.tv_sec - start.tv_sec) * 1000000 + (end.tv_nsec - start.tv_nsec) / 1000);
  return 0;
}

static int drop(const char *path) {
  int file = open(path, O_RDONLY);
  if (file < 0 || fsync(file) < 0) return fail("write the file out");
  return posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED) == 0 ? 0 : fail("forget the file");
}

int main(int count, char **arguments) {
  if (count == 4 && strcmp(arguments[1], "read") == 0) return read_randomly(arguments[2], atol(arguments[3]));
  if (count == 3 && strcmp(arguments[1], "drop") == 0) return drop(arguments[2]);
  if (count == 4 && strcmp(arguments[1], "mount") == 0)
    return mount(arguments[2], arguments[3], "erofs", MS_RDONLY, NULL) == 0 ? 0 : fail("mount");
  return 2;
}

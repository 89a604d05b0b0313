/* Small tools that every part uses: descriptors that close themselves, complete reads and writes, monotonic time. */
#ifndef SQ_IO_H
#define SQ_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define AUTO_CLOSE __attribute__((cleanup(close_fd)))
#define ARRAY_LEN(array) (sizeof(array) / sizeof((array)[0]))

/* Closes `*fd` when it is one. */
void close_fd(const int *fd);

/* Closes all descriptors but `kept`, which it sorts. Returns 0, or -1 with errno. */
int close_all_but(int *kept, size_t count);

/* Reads exactly `size` bytes; returns 0, or -1 with errno (EPIPE at the end of the stream). */
int read_full(int fd, void *buffer, size_t size);

/* Writes all of `size` bytes without raising SIGPIPE on sockets; returns 0, or -1 with errno. */
int write_full(int fd, const void *buffer, size_t size);

/* Writes a text to an existing file such as those of procfs and cgroupfs, relative to `dirfd`; returns 0, or -1 with errno. */
int write_file_at(int dirfd, const char *path, const char *text);

/* Reads at most `size - 1` bytes of a small file and ends them with NUL; returns the count, or -1 with errno. */
ssize_t read_file_at(int dirfd, const char *path, char *buffer, size_t size);

/* Milliseconds of CLOCK_MONOTONIC. */
uint64_t now_ms(void);

/* Formats into a buffer of `size` bytes; returns -1 with errno ENAMETOOLONG when it does not fit. */
int format(char *buffer, size_t size, const char *pattern, ...) __attribute__((format(printf, 3, 4)));

#endif

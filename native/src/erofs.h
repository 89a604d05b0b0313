/*
 * Writes an uncompressed erofs image: the on-disk format of Linux (fs/erofs/erofs_fs.h), with extended inodes, flat and chunked files, and
 * attributes beside each inode. Data comes first, as it is read; directories and inodes follow. Allocates, so it is for a process of its own.
 * Ends with ECANCELED once the file has no name any more, so that whoever wants no image any longer has only to remove it.
 */
#ifndef SQ_EROFS_H
#define SQ_EROFS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "failure.h"

enum { EROFS_BLOCK = 4096, EROFS_ROOT = 0, EROFS_NONE = -1 };

struct erofs_inode {
  uint64_t size;
  int64_t mtime;
  uint32_t mtime_nsec, uid, gid, nlink, device;
  uint16_t mode;
  uint32_t first_entry, entry_count, parent; /* of a directory */
};

struct erofs_image;

/* An image that will be written to `file`, which must be empty. At most `inode_limit` inodes. NULL where there is no memory. */
struct erofs_image *erofs_new(int file, uint32_t inode_limit);

/* Adds an inode; the first one is the root. Returns its number, or EROFS_NONE. */
int64_t erofs_add_inode(struct erofs_image *image, const struct erofs_inode *inode, struct failure *failure);

/* Adds a name to the directory whose names are being added; all those of one directory are added in a row, sorted, without "." and "..". */
int erofs_add_entry(struct erofs_image *image, const char *name, uint32_t inode, struct failure *failure);

/* The number that the next entry gets. */
uint32_t erofs_entry_count(const struct erofs_image *image);

/* What an entry leads to, and its name, until the next one is added. */
uint32_t erofs_entry_inode(const struct erofs_image *image, uint32_t entry);
const char *erofs_entry_name(const struct erofs_image *image, uint32_t entry);

struct erofs_inode *erofs_inode_at(struct erofs_image *image, uint32_t number);

/* Gives an inode an attribute, by its full name; one with a prefix that the format does not know is refused with EOPNOTSUPP. */
int erofs_add_attribute(struct erofs_image *image, uint32_t inode, const char *name, const void *value, size_t size, struct failure *failure);

/* Copies the content of a regular file, which must be of the inode's size; holes stay holes. */
int erofs_write_file(struct erofs_image *image, uint32_t inode, int file, struct failure *failure);

int erofs_write_link(struct erofs_image *image, uint32_t inode, const char *target, size_t size, struct failure *failure);

/* Writes directories, inodes and the superblock. Returns the image's size in bytes, or -1. */
int64_t erofs_finish(struct erofs_image *image, struct failure *failure);

void erofs_free(struct erofs_image *image);

#endif

#include "erofs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io.h"

/* Source of the format: fs/erofs/erofs_fs.h. All numbers are little-endian, as those of every machine that this runs on. */
enum {
  MAGIC = 0xE0F5E1E2, SUPER_OFFSET = 1024, SUPER_SIZE = 128, INODE_SIZE = 64, SLOT = 32, HAS_MTIME = 2, CHUNKED_FEATURE = 4,
  FLAT = 0, INLINE = 2, CHUNKED = 4, ATTRIBUTE_HEADER = 12, MAX_CHUNKS = 65536, INLINE_LINK = 2048, BLOCK_BITS = 12, DIRENT_SIZE = 12,
  MAX_CHUNK_BITS = 31, BUFFER = 256 * 1024
};

static const uint32_t hole = UINT32_MAX;
static const uint64_t block_limit = UINT32_MAX;
static const size_t arena_limit = UINT32_C(1) << 30;

struct node {
  struct erofs_inode inode;
  uint64_t place;                     /* its number on disk: bytes from the first inode, in slots */
  uint32_t block;                     /* first one of its data; of a chunked file its kind of chunks */
  uint32_t extra, extra_size;         /* in the arena: a short link's target, or a chunked file's table */
  uint32_t attributes, attribute_size; /* in the arena */
  uint8_t layout;
};

struct entry {
  uint32_t name; /* in the arena, ended by NUL */
  uint32_t inode;
};

struct erofs_image {
  int file;
  uint64_t end; /* of the data so far, in whole blocks */
  struct node *nodes;
  uint32_t node_count, node_capacity, node_limit;
  struct entry *entries;
  uint32_t entry_count, entry_capacity;
  uint8_t *arena;
  size_t arena_size, arena_capacity;
  uint8_t *buffer;
  bool chunked;
  unsigned __int128 sum; /* of all that was written and where */
};

static int out_of_memory(struct failure *failure) {
  errno = ENOMEM;
  return fail(failure, "keep the list of all files");
}

/* Room for one more element of `size` bytes. */
static void *grown(void *array, uint32_t count, uint32_t *capacity, size_t size) {
  if (count < *capacity) return array;
  uint32_t wanted = *capacity == 0 ? 256 : *capacity * 2;
  if (wanted <= *capacity) return NULL;
  void *larger = reallocarray(array, wanted, size);
  if (larger != NULL) *capacity = wanted;
  return larger;
}

/* Adds bytes to the arena (zeroes where there are none). Returns where they are, or -1. */
static int64_t keep(struct erofs_image *image, const void *bytes, size_t size) {
  if (size > arena_limit - image->arena_size) return -1;
  while (image->arena_size + size > image->arena_capacity) {
    size_t wanted = image->arena_capacity == 0 ? 65536 : image->arena_capacity * 2;
    uint8_t *larger = realloc(image->arena, wanted);
    if (larger == NULL) return -1;
    image->arena = larger;
    image->arena_capacity = wanted;
  }
  uint8_t *place = image->arena + image->arena_size;
  if (bytes == NULL) memset(place, 0, size);
  else memcpy(place, bytes, size);
  image->arena_size += size;
  return (int64_t)(image->arena_size - size);
}

void erofs_free(struct erofs_image *image) {
  free(image->nodes);
  free(image->entries);
  free(image->arena);
  free(image->buffer);
  free(image);
}

struct erofs_image *erofs_new(int file, uint32_t inode_limit) {
  struct erofs_image *image = calloc(1, sizeof(*image));
  if (image == NULL) return NULL;
  *image = (struct erofs_image){.file = file, .end = 1, .node_limit = inode_limit, .buffer = malloc(BUFFER)};
  if (image->buffer != NULL && keep(image, "", 1) == 0) return image; /* so that the arena is never nothing */
  erofs_free(image);
  return NULL;
}

/* Whoever removes the image's file while it is being written calls the writing off. */
static int check_wanted(const struct erofs_image *image, struct failure *failure) {
  struct stat info;
  if (fstat(image->file, &info) < 0) return fail(failure, "look at the image");
  errno = ECANCELED;
  return info.st_nlink == 0 ? fail(failure, "go on with an image that was removed") : 0;
}

int64_t erofs_add_inode(struct erofs_image *image, const struct erofs_inode *inode, struct failure *failure) {
  if (check_wanted(image, failure) < 0) return -1;
  errno = EMFILE;
  if (image->node_count >= image->node_limit) return fail(failure, "take in more than %u files", image->node_limit);
  struct node *nodes = grown(image->nodes, image->node_count, &image->node_capacity, sizeof(*nodes));
  if (nodes == NULL) return out_of_memory(failure);
  image->nodes = nodes;
  nodes[image->node_count] = (struct node){.inode = *inode, .layout = FLAT, .block = hole};
  return image->node_count++;
}

int erofs_add_entry(struct erofs_image *image, const char *name, uint32_t inode, struct failure *failure) {
  struct entry *entries = grown(image->entries, image->entry_count, &image->entry_capacity, sizeof(*entries));
  if (entries == NULL) return out_of_memory(failure);
  image->entries = entries;
  int64_t place = keep(image, name, strlen(name) + 1);
  if (place < 0) return out_of_memory(failure);
  entries[image->entry_count++] = (struct entry){.name = (uint32_t)place, .inode = inode};
  return 0;
}

uint32_t erofs_entry_count(const struct erofs_image *image) { return image->entry_count; }

uint32_t erofs_entry_inode(const struct erofs_image *image, uint32_t entry) { return image->entries[entry].inode; }

const char *erofs_entry_name(const struct erofs_image *image, uint32_t entry) {
  return (const char *)image->arena + image->entries[entry].name;
}

struct erofs_inode *erofs_inode_at(struct erofs_image *image, uint32_t number) { return &image->nodes[number].inode; }

/* The number of an attribute's prefix, and the rest of its name. Those of access lists are whole names. */
static int split_name(const char *name, const char **rest) {
  static const struct {
    const char *prefix;
    int number;
  } known[] = {{"user.", 1}, {"system.posix_acl_access", 2}, {"system.posix_acl_default", 3}, {"trusted.", 4}, {"security.", 6}};
  for (size_t i = 0; i < ARRAY_LEN(known); i++) {
    size_t size = strlen(known[i].prefix);
    if (strncmp(name, known[i].prefix, size) != 0) continue;
    *rest = name + size;
    if (known[i].number != 2 && known[i].number != 3) return known[i].number;
    return **rest == '\0' ? known[i].number : -1;
  }
  return -1;
}

/* Makes the end of the arena the place for the next attribute of an inode. */
static int begin_attributes(struct erofs_image *image, struct node *node) {
  uint32_t size = node->attribute_size;
  if (size > 0 && node->attributes + size == image->arena_size) return 0;
  int64_t start = keep(image, NULL, size == 0 ? ATTRIBUTE_HEADER : size);
  if (start < 0) return -1;
  if (size > 0) memcpy(image->arena + start, image->arena + node->attributes, size);
  node->attributes = (uint32_t)start;
  node->attribute_size = size == 0 ? ATTRIBUTE_HEADER : size;
  return 0;
}

int erofs_add_attribute(struct erofs_image *image, uint32_t inode, const char *name, const void *value, size_t size,
                        struct failure *failure) {
  struct node *node = &image->nodes[inode];
  const char *rest = NULL;
  int prefix = split_name(name, &rest);
  errno = EOPNOTSUPP;
  if (prefix < 0) return fail(failure, "keep attribute %s", name);
  errno = E2BIG;
  if (size > UINT16_MAX || node->attribute_size + size > 4 * UINT16_MAX - 512) return fail(failure, "keep attribute %s", name);
  uint8_t head[4] = {(uint8_t)strlen(rest), (uint8_t)prefix, (uint8_t)(size & 255), (uint8_t)(size >> 8)};
  size_t length = sizeof(head) + head[0] + size, padding = -length & 3;
  if (begin_attributes(image, node) < 0 || keep(image, head, sizeof(head)) < 0 || keep(image, rest, head[0]) < 0 || keep(image, value, size) < 0 ||
      keep(image, NULL, padding) < 0)
    return out_of_memory(failure);
  node->attribute_size += (uint32_t)(length + padding);
  return 0;
}

/*
 * Takes what is written into the sum, each word times a number that belongs to its place. The sum is the same in whatever order and pieces the
 * bytes come. It tells images apart that nobody has made to look alike, at the speed of memory; a digest would take longer than the writing.
 */
static void add_to_sum(struct erofs_image *image, const uint8_t *bytes, size_t size, uint64_t offset) {
  for (size_t done = 0; done < size;) {
    uint64_t at = offset + done, inside = at % sizeof(uint64_t), word = 0;
    size_t part = sizeof(word);
    if (inside == 0 && size - done >= part) {
      memcpy(&word, bytes + done, sizeof(word));
    } else {
      part -= inside;
      if (part > size - done) part = size - done;
      memcpy((uint8_t *)&word + inside, bytes + done, part);
    }
    uint64_t factor = (at / sizeof(word) + 1) * UINT64_C(0x9E3779B97F4A7C15);
    factor = (factor ^ factor >> 32) * UINT64_C(0xD6E8FEB86659FD93);
    image->sum += (unsigned __int128)word * ((factor ^ factor >> 29) | 1);
    done += part;
  }
}

static int write_at(struct erofs_image *image, const void *bytes, size_t size, uint64_t offset, struct failure *failure) {
  add_to_sum(image, bytes, size, offset);
  for (size_t done = 0; done < size;) {
    ssize_t count = pwrite(image->file, (const uint8_t *)bytes + done, size - done, (off_t)(offset + done));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return fail(failure, "write the image");
    done += (size_t)count;
  }
  return 0;
}

/* Takes whole blocks for `size` bytes. Returns the first one, or -1. */
static int64_t take_blocks(struct erofs_image *image, uint64_t size, struct failure *failure) {
  uint64_t count = size / EROFS_BLOCK + (size % EROFS_BLOCK != 0);
  errno = EFBIG;
  if (count >= block_limit - image->end) return fail(failure, "fit all files into an image");
  image->end += count;
  return (int64_t)(image->end - count);
}

static int copy_range(struct erofs_image *image, int file, uint64_t from, uint64_t size, uint64_t to, struct failure *failure) {
  while (size > 0) {
    if (check_wanted(image, failure) < 0) return -1;
    ssize_t count = pread(file, image->buffer, size < BUFFER ? size : BUFFER, (off_t)from);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) {
      if (count == 0) errno = EIO;
      return fail(failure, "read a file");
    }
    if (write_at(image, image->buffer, (size_t)count, to, failure) < 0) return -1;
    from += (uint64_t)count;
    to += (uint64_t)count;
    size -= (uint64_t)count;
  }
  return 0;
}

/* The least chunks of which there are not too many. */
static uint32_t chunk_bits(uint64_t size) {
  uint32_t bits = BLOCK_BITS;
  while (bits < MAX_CHUNK_BITS && (size - 1) >> bits >= MAX_CHUNKS) bits++;
  return bits;
}

/* Only chunks with data take blocks; what is a hole within one stays a hole of the image's file. */
static int write_chunks(struct erofs_image *image, uint32_t number, int file, struct failure *failure) {
  uint64_t size = image->nodes[number].inode.size;
  uint32_t bits = chunk_bits(size);
  uint64_t chunk = UINT64_C(1) << bits, count = ((size - 1) >> bits) + 1, last = UINT64_MAX;
  errno = EFBIG;
  if (count > MAX_CHUNKS) return fail(failure, "take in a file of %llu bytes", (unsigned long long)size);
  int64_t table = keep(image, NULL, count * sizeof(uint32_t));
  if (table < 0) return out_of_memory(failure);
  memset(image->arena + table, 0xff, count * sizeof(uint32_t));
  for (off_t at = 0;;) {
    off_t start = lseek(file, at, SEEK_DATA);
    if (start < 0 && errno == ENXIO) break;
    off_t end = start < 0 ? -1 : lseek(file, start, SEEK_HOLE);
    if (end < 0) return fail(failure, "find the holes of a file");
    if ((uint64_t)end > size) end = (off_t)size;
    for (uint64_t from = (uint64_t)start; from < (uint64_t)end;) {
      uint64_t index = from >> bits, rest = (index + 1) << bits;
      uint64_t until = rest < (uint64_t)end ? rest : (uint64_t)end, inside = from - (index << bits);
      if (index != last) {
        int64_t block = take_blocks(image, size - (index << bits) < chunk ? size - (index << bits) : chunk, failure);
        if (block < 0) return -1;
        uint32_t address = (uint32_t)block;
        memcpy(image->arena + table + index * sizeof(address), &address, sizeof(address));
        last = index;
      }
      uint32_t address;
      memcpy(&address, image->arena + table + index * sizeof(address), sizeof(address));
      if (copy_range(image, file, from, until - from, (uint64_t)address * EROFS_BLOCK + inside, failure) < 0) return -1;
      from = until;
    }
    at = end;
  }
  struct node *node = &image->nodes[number];
  node->layout = CHUNKED;
  node->block = bits - BLOCK_BITS;
  node->extra = (uint32_t)table;
  node->extra_size = (uint32_t)(count * sizeof(uint32_t));
  image->chunked = true;
  return 0;
}

int erofs_write_file(struct erofs_image *image, uint32_t inode, int file, struct failure *failure) {
  uint64_t size = image->nodes[inode].inode.size;
  if (size == 0) return 0;
  off_t first_hole = lseek(file, 0, SEEK_HOLE);
  if (first_hole >= 0 && (uint64_t)first_hole < size) return write_chunks(image, inode, file, failure);
  int64_t block = take_blocks(image, size, failure);
  if (block < 0) return -1;
  image->nodes[inode].block = (uint32_t)block;
  return copy_range(image, file, 0, size, (uint64_t)block * EROFS_BLOCK, failure);
}

int erofs_write_link(struct erofs_image *image, uint32_t inode, const char *target, size_t size, struct failure *failure) {
  struct node *node = &image->nodes[inode];
  node->inode.size = size;
  if (size <= INLINE_LINK) {
    int64_t place = keep(image, target, size);
    if (place < 0) return out_of_memory(failure);
    node->layout = INLINE;
    node->extra = (uint32_t)place;
    node->extra_size = (uint32_t)size;
    return 0;
  }
  int64_t block = take_blocks(image, size, failure);
  if (block < 0) return -1;
  node->block = (uint32_t)block;
  return write_at(image, target, size, (uint64_t)block * EROFS_BLOCK, failure);
}

/* Gives every inode its place. What is inline must lie in one block. Returns the bytes that all take. */
static uint64_t place_inodes(struct erofs_image *image) {
  uint64_t at = 0;
  for (uint32_t i = 0; i < image->node_count; i++) {
    struct node *node = &image->nodes[i];
    uint64_t head = INODE_SIZE + node->attribute_size;
    at = (at + SLOT - 1) / SLOT * SLOT;
    if (node->layout == INLINE)
      while ((at + head) % EROFS_BLOCK + node->extra_size > EROFS_BLOCK) at += SLOT;
    node->place = at / SLOT;
    at += head + node->extra_size;
  }
  return at;
}

/* One name of a directory, "." and ".." included. */
struct listed {
  const char *name;
  size_t length;
  uint32_t inode;
};

static int by_name(const void *left, const void *right) {
  return strcmp(((const struct listed *)left)->name, ((const struct listed *)right)->name);
}

static uint8_t file_type(uint16_t mode) {
  static const struct {
    unsigned mode;
    uint8_t type;
  } types[] = {{S_IFREG, 1}, {S_IFDIR, 2}, {S_IFCHR, 3}, {S_IFBLK, 4}, {S_IFIFO, 5}, {S_IFSOCK, 6}, {S_IFLNK, 7}};
  for (size_t i = 0; i < ARRAY_LEN(types); i++)
    if (types[i].mode == (mode & (unsigned)S_IFMT)) return types[i].type;
  return 0;
}

static void put_dirent(const struct erofs_image *image, uint8_t *block, size_t slot, const struct listed *listed, size_t name_at) {
  uint8_t *dirent = block + slot * DIRENT_SIZE;
  uint64_t place = image->nodes[listed->inode].place;
  uint16_t offset = (uint16_t)name_at;
  memcpy(dirent, &place, sizeof(place));
  memcpy(dirent + 8, &offset, sizeof(offset));
  dirent[10] = file_type(image->nodes[listed->inode].inode.mode);
  dirent[11] = 0;
  memcpy(block + name_at, listed->name, listed->length);
}

/* How many of `count` names fit into one block, and the bytes that they take of it. */
static size_t fill_block(const struct listed *listed, size_t count, size_t *used) {
  size_t fitting = 0;
  *used = 0;
  while (fitting < count && *used + DIRENT_SIZE + listed[fitting].length <= EROFS_BLOCK) *used += DIRENT_SIZE + listed[fitting++].length;
  return fitting;
}

static int write_listing(struct erofs_image *image, struct node *node, const struct listed *listed, size_t count, struct failure *failure) {
  size_t used = 0, blocks = 0;
  for (size_t at = 0; at < count; blocks++) at += fill_block(listed + at, count - at, &used);
  int64_t first = take_blocks(image, blocks * EROFS_BLOCK, failure);
  if (first < 0) return -1;
  node->block = (uint32_t)first;
  node->inode.size = (blocks - 1) * EROFS_BLOCK + used;
  for (size_t at = 0, block = 0; at < count; block++) {
    uint8_t bytes[EROFS_BLOCK] = {0};
    size_t fitting = fill_block(listed + at, count - at, &used), name_at = fitting * DIRENT_SIZE;
    for (size_t i = 0; i < fitting; i++) {
      put_dirent(image, bytes, i, &listed[at + i], name_at);
      name_at += listed[at + i].length;
    }
    if (write_at(image, bytes, sizeof(bytes), ((uint64_t)first + block) * EROFS_BLOCK, failure) < 0) return -1;
    at += fitting;
  }
  return 0;
}

static int write_directory(struct erofs_image *image, uint32_t number, struct failure *failure) {
  struct node *node = &image->nodes[number];
  size_t count = node->inode.entry_count + 2U;
  struct listed *listed = reallocarray(NULL, count, sizeof(*listed));
  if (listed == NULL) return out_of_memory(failure);
  listed[0] = (struct listed){".", 1, number};
  listed[1] = (struct listed){"..", 2, node->inode.parent};
  for (uint32_t i = 0; i < node->inode.entry_count; i++) {
    const char *name = erofs_entry_name(image, node->inode.first_entry + i);
    listed[i + 2] = (struct listed){name, strlen(name), image->entries[node->inode.first_entry + i].inode};
  }
  qsort(listed, count, sizeof(*listed), by_name);
  int result = write_listing(image, node, listed, count, failure);
  free(listed);
  return result;
}

static void encode_inode(const struct node *node, uint32_t number, uint8_t bytes[INODE_SIZE]) {
  struct {
    uint16_t format, attribute_count, mode, reserved;
    uint64_t size;
    uint32_t data, number, uid, gid;
    uint64_t mtime;
    uint32_t mtime_nsec, nlink;
    uint8_t rest[16];
  } disk = {.format = (uint16_t)(node->layout << 1 | 1), .mode = node->inode.mode, .size = node->inode.size, .number = number + 1};
  _Static_assert(sizeof(disk) == INODE_SIZE, "an inode as it is on disk");
  uint32_t type = node->inode.mode & S_IFMT;
  bool is_file = type == S_IFREG || type == S_IFDIR || type == S_IFLNK;
  disk.attribute_count = (uint16_t)(node->attribute_size == 0 ? 0 : (node->attribute_size - ATTRIBUTE_HEADER) / 4 + 1);
  disk.data = is_file ? node->block : node->inode.device;
  disk.uid = node->inode.uid;
  disk.gid = node->inode.gid;
  disk.mtime = (uint64_t)node->inode.mtime;
  disk.mtime_nsec = node->inode.mtime_nsec;
  disk.nlink = node->inode.nlink;
  memcpy(bytes, &disk, sizeof(disk));
}

static int write_inodes(struct erofs_image *image, uint64_t start, struct failure *failure) {
  for (uint32_t i = 0; i < image->node_count; i++) {
    const struct node *node = &image->nodes[i];
    uint8_t bytes[INODE_SIZE];
    uint64_t at = start * EROFS_BLOCK + node->place * SLOT;
    encode_inode(node, i, bytes);
    if (write_at(image, bytes, sizeof(bytes), at, failure) < 0) return -1;
    at += sizeof(bytes);
    if (write_at(image, image->arena + node->attributes, node->attribute_size, at, failure) < 0) return -1;
    at += node->attribute_size;
    if (write_at(image, image->arena + node->extra, node->extra_size, at, failure) < 0) return -1;
  }
  return 0;
}

/*
 * Made of all that was written before, so that the same files give the same bytes. Overlayfs finds the file of a layer from which another one was
 * copied by the layer's UUID; for layers without one, or of the same, it does not. Source of the form: RFC 9562, section 5.8, version 8.
 */
static void put_uuid(const struct erofs_image *image, uint8_t uuid[16]) {
  memcpy(uuid, &image->sum, 16);
  uuid[6] = (uint8_t)((uuid[6] & 0x0f) | 0x80);
  uuid[8] = (uint8_t)((uuid[8] & 0x3f) | 0x80);
}

static int write_super(struct erofs_image *image, uint64_t inodes_at, struct failure *failure) {
  struct {
    uint32_t magic, checksum, compatible;
    uint8_t block_bits, slots;
    uint16_t root;
    uint64_t inodes, built;
    uint32_t built_nsec, blocks, inodes_at, attributes_at;
    uint8_t uuid[16], name[16];
    uint32_t incompatible;
    uint8_t rest[44];
  } disk = {.magic = MAGIC, .compatible = HAS_MTIME, .block_bits = BLOCK_BITS, .inodes = image->node_count};
  _Static_assert(sizeof(disk) == SUPER_SIZE, "a superblock as it is on disk");
  disk.root = (uint16_t)image->nodes[EROFS_ROOT].place;
  disk.blocks = (uint32_t)image->end;
  disk.inodes_at = (uint32_t)inodes_at;
  disk.incompatible = image->chunked ? CHUNKED_FEATURE : 0;
  put_uuid(image, disk.uuid);
  return write_at(image, &disk, sizeof(disk), SUPER_OFFSET, failure);
}

int64_t erofs_finish(struct erofs_image *image, struct failure *failure) {
  uint64_t size = place_inodes(image);
  for (uint32_t i = 0; i < image->node_count; i++)
    if (S_ISDIR(image->nodes[i].inode.mode) && write_directory(image, i, failure) < 0) return -1;
  int64_t inodes_at = take_blocks(image, size, failure);
  if (inodes_at < 0 || write_inodes(image, (uint64_t)inodes_at, failure) < 0) return -1;
  if (write_super(image, (uint64_t)inodes_at, failure) < 0) return -1;
  uint64_t end = image->end * EROFS_BLOCK; /* the last blocks may be holes */
  if (ftruncate(image->file, (off_t)end) < 0) return fail(failure, "set the size of the image");
  return (int64_t)end;
}
